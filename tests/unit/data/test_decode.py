import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_fakes import save_image
from PIL import Image

from job.data.decode import UnreadableImageError, decode, decode_content


def test_a_picture_is_read_as_rgb_or_gray(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png")
    rgb = decode(path, 3)
    gray = decode(path, 1)
    assert rgb.shape == (10, 12, 3)
    assert gray.shape == (10, 12, 1)
    assert rgb.dtype == gray.dtype == np.uint8
    np.testing.assert_array_equal(rgb, np.asarray(Image.open(path)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "YCbCr"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    extra = {"transparency": b"\0\1"} if mode == "P" else {}
    if mode in ("P", "LA"):
        path = tmp_path / "a.png"
    Image.new("RGB", (5, 4), (250, 250, 250)).convert(mode).save(path, **extra)
    pixels = decode(path, 3)
    assert pixels.shape == (4, 5, 3)
    assert pixels.min() > 200


def test_sixteen_bit_gray_keeps_its_brightness(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((2, 2), 0x8000, np.uint16)).save(path)
    assert decode(path, 3).tolist() == [[[128] * 3] * 2] * 2


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 3)).save(path, exif=exif)
    assert decode(path, 3).shape == (3, 6, 3)


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / "a.jpg"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not an image, but a long enough text to be looked at")
    elif kind == "truncated":
        content = save_image(path, size=(64, 64)).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "float":
        Image.new("F", (4, 4)).save(path, format="TIFF")
    elif kind == "postscript":
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "^no such file$"),
        ("empty", "^the file is empty$"),
        ("text", "^not an image in a known format"),
        ("truncated", "^cannot be decoded: .*truncated"),
        ("folder", "^not a regular file$"),
        ("pipe", "^not a regular file$"),
        ("float", "no defined brightness"),
        ("postscript", "^not an image in a known format"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(UnreadableImageError, match=message):
        decode(bad_file(tmp_path, kind), 3)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (9000, 9000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(UnreadableImageError, match="9000x9000 pixels"):
        decode(path, 3)


def test_broken_png_chunks_are_bad_images(tmp_path: Path) -> None:
    content = bytearray(save_image(tmp_path / "a.png").read_bytes())
    content[45:60] = bytes(15)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"cannot be decoded|not an image"):
        decode(tmp_path / "a.png", 3)


def test_a_header_of_65535_by_65535_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = bytearray(save_image(tmp_path / "a.jpg").read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"65535x65535 pixels|exceeds limit"):
        decode(tmp_path / "a.jpg", 3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (6, 5), (shade,) * 3) for shade in (200, 0, 0)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    pixels = decode(path, 3)
    assert pixels.shape == (5, 6, 3)
    assert pixels.min() > 190


def test_a_device_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("/dev/zero")
    with pytest.raises(UnreadableImageError, match=r"^not a regular file$"):
        decode(tmp_path / "a.jpg", 3)


CHUNKS = (b"pHYs", b"tEXt", b"gAMA", b"tIME")


@pytest.mark.parametrize("damaged", [*CHUNKS, b"".join(CHUNKS)])
@pytest.mark.parametrize("place", ["content", "checksum"])
def test_a_wrong_checksum_in_a_chunk_of_a_png_that_is_not_needed(
    tmp_path: Path, damaged: bytes, place: str
) -> None:
    path = save_image(tmp_path / "a.png")
    expected = decode(path, 3)
    content = path.read_bytes()
    start, end = content[:33], content[-12:]
    extras = b""
    for name in CHUNKS:
        chunk = bytearray(struct.pack(">I", 9) + name + b"123456789")
        checksum = bytearray(struct.pack(">I", zlib.crc32(chunk[4:])))
        if name in damaged:
            (checksum if place == "checksum" else chunk)[-1] ^= 255
        extras += chunk + checksum
    # tIME may stand behind the pixels.
    path.write_bytes(start + extras[:-42] + content[33:-12] + extras[-42:] + end)
    np.testing.assert_array_equal(decode(path, 3), expected)
    np.testing.assert_array_equal(decode_content(path.read_bytes(), 3), expected)


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT"])
def test_a_damaged_chunk_of_a_png_that_is_needed(tmp_path: Path, name: bytes) -> None:
    path = save_image(tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[content.find(name) + 6] ^= 255
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError):
        decode(path, 3)
