import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_fakes import save_image

from job.data import packed
from job.data.copies import Copies, find_copies
from job.data.s3.images import MISSING, RemoteImages
from job.data.s3.index import RemoteIndex
from job.data.sources import ArrayImages, ImageFiles, PackedImages, Source, synthetic
from job.data.splits import Part
from job.storage.s3.access import Access
from job.storage.s3.client import S3Settings
from job.storage.s3.prefetch import PieceReader
from job.uri import S3Uri


def whole(source: Source) -> Part:
    return Part(source, np.arange(len(source)), "all")


def files(folder: Path, *names: str) -> Part:
    labels = np.zeros(len(names), np.int64)
    return whole(ImageFiles(folder, str(folder), names, labels, channels=3))


def search(part: Part, other: Part) -> Copies:
    return find_copies(part, other, lambda done, total: True)


def test_equal_files_are_found_by_name(tmp_path: Path) -> None:
    for number in range(4):
        save_image(tmp_path / f"train/{number}.bmp", number, (60, 60))
    for number in range(2, 12):
        save_image(tmp_path / f"val/{number}.bmp", number, (60, 60))
    shutil.copy(tmp_path / "train/0.bmp", tmp_path / "val/again.bmp")
    changed = bytearray((tmp_path / "train/1.bmp").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "val/changed.bmp").write_bytes(changed)
    (tmp_path / "val/empty.bmp").touch()
    (tmp_path / "train/empty.bmp").touch()
    os.mkfifo(tmp_path / "val/pipe.bmp")
    val = files(tmp_path, *sorted(f"val/{path.name}" for path in (tmp_path / "val").iterdir()))
    train = files(tmp_path, *(f"train/{name}.bmp" for name in ("0", "1", "2", "3", "empty", "no")))
    copies = search(val, train)
    assert copies.images == 3
    assert set(copies.names) == {
        ("val/again.bmp", "train/0.bmp"),
        ("val/2.bmp", "train/2.bmp"),
        ("val/3.bmp", "train/3.bmp"),
    }


def test_many_copies_are_counted_and_some_named(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    for number in range(20):
        shutil.copy(tmp_path / "a.png", tmp_path / f"{number}.png")
    copies = search(files(tmp_path, *(f"{n}.png" for n in range(20))), files(tmp_path, "a.png"))
    assert copies.images == 20
    assert len(copies.names) == 5


def test_only_the_images_of_a_part_are_compared() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) % 3
    source = ArrayImages(images, np.zeros(6, np.int64), "arrays")
    first, second = (Part(source, np.asarray(indices), "") for indices in ([0, 1], [2, 3, 5]))
    copies = search(first, second)
    assert (copies.images, copies.names) == (1, (("arrays#0", "arrays#3"),))


def test_equal_images_of_packed_files_are_found(tmp_path: Path) -> None:
    # They differ outside of their middle only.
    images = np.zeros((3, 1, 64, 64), np.float32)
    images[1, 0, 0, 0] = 1
    images[2, 0, -1, -1] = 1

    def pack(name: str, *chosen: int) -> Part:
        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            yield images[list(chosen)], np.zeros(len(chosen), np.int64)

        path = tmp_path / name
        packed.write(path, batches(), shape=(1, 64, 64), transform="")
        return whole(PackedImages(path, (1, 64, 64), np.zeros(len(chosen), np.int64)))

    copies = search(pack("val.bin", 2, 0, 1), pack("train.bin", 1))
    assert (copies.images, copies.names) == (1, (("val.bin#2", "train.bin#0"),))


@pytest.mark.parametrize("kind", ["objects", "members"])
def test_equal_images_in_s3_are_found_without_a_download(kind: str) -> None:
    names = ("t/0", "t/1", "t/2", "v/0", "v/1", "v/2", "v/3")
    marks = ("a", "b", "e", "b", "a", "c", "e")
    sizes = np.asarray([1, 2, 0, 2, 3, 3, 0], np.int64)
    places = np.zeros((7, 2), np.int64) if kind == "members" else None
    index = RemoteIndex(S3Uri("b", "k"), names, sizes, marks, places=places)
    reader = PieceReader(Access(S3Settings(), Path("cache"), 1))

    def part(*chosen: int) -> Part:
        labels = np.zeros(len(chosen), np.int64)
        named = tuple(names[it] if it != MISSING else "gone" for it in chosen)
        return whole(RemoteImages(index, np.asarray(chosen), named, labels, 3, reader))

    copies = search(part(3, 4, 5, 6, MISSING), part(0, 1, 2, MISSING))
    assert (copies.images, copies.names) == (1, (("v/0", "t/1"),))


def test_sources_that_cannot_share_images(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    random = whole(synthetic(3, 2, (1, 2, 2)))
    assert search(random, random).images == 0
    assert search(files(tmp_path, "a.png"), random).images == 0


def test_a_stop_ends_the_search() -> None:
    images = np.arange(5000).astype(np.uint8).reshape(5000, 1, 1, 1)
    part = whole(ArrayImages(images, np.zeros(5000, np.int64), "arrays"))
    calls: list[tuple[int, int]] = []

    def proceed(done: int, total: int) -> bool:
        calls.append((done, total))
        return len(calls) < 2

    assert 0 < find_copies(part, part, proceed).images <= 5000
    assert len(calls) == 2
    assert all(total == 5000 for _, total in calls)
