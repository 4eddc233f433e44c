import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from job.data import packed
from job.data.sources import PackedImages
from job.data.transforms import Floats, Ints
from job.errors import DataError, OutputError

SHAPE = (2, 3, 4)


def some_batches() -> list[tuple[Floats, Ints]]:
    rng = np.random.default_rng(0)
    return [
        (rng.random((count, *SHAPE), np.float32), rng.integers(0, 9, count)) for count in (3, 1)
    ]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    packed.write(tmp_path / "a.bin", some_batches(), shape=SHAPE, transform="none")
    return tmp_path / "a.bin"


def test_the_layout_is_the_tutorials(written: Path) -> None:
    content = written.read_bytes()
    images = np.concatenate([images for images, _ in some_batches()])
    labels = np.concatenate([labels for _, labels in some_batches()])
    assert struct.unpack("<q", content[:8]) == (4,)
    assert content[8 : 8 + 4 * 24 * 4] == images.astype("<f4").tobytes()
    assert content[8 + 4 * 24 * 4 :] == labels.astype("<i8").tobytes()


def test_what_is_written_can_be_opened(written: Path) -> None:
    opened = packed.open_packed(written, SHAPE)
    images = np.concatenate([images for images, _ in some_batches()])
    np.testing.assert_array_equal(opened.images, images)
    assert opened.labels.dtype == np.int64
    assert len(opened.labels) == 4
    assert isinstance(opened.images, np.memmap)
    source = PackedImages(path=written, shape=SHAPE, labels=opened.labels)
    np.testing.assert_array_equal(source.read(3), images[3].transpose(1, 2, 0))
    assert source.names[3] == "a.bin#3"


def test_the_sidecar_describes_the_file(written: Path) -> None:
    description = json.loads(packed.sidecar(written).read_text())
    assert description == {
        "format": "packed",
        "count": 4,
        "shape": [2, 3, 4],
        "dtype": "float32",
        "transform": "none",
        "bytes": written.stat().st_size,
        "sha256": hashlib.sha256(written.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: b"", "int64 count .*0 bytes"),
        (lambda content: b"\0" * 8, "header.* 0$"),
        (lambda content: b"\xff" * 8 + content[8:], "header.* -1$"),
        (lambda content: content[:-1], "expected 424 bytes for the header's 4 images of 2x3x4 "),
        (lambda content: content + b"\0", "found 425"),
        (lambda content: b"\xff" * 7 + b"\x7f" + content[8:], "header's 9,223,372,036,854,775,807"),
    ],
)
def test_a_wrong_file_says_found_and_expected(written: Path, edit: object, message: str) -> None:
    assert callable(edit)
    written.write_bytes(edit(written.read_bytes()))
    with pytest.raises(DataError, match=message):
        packed.open_packed(written, SHAPE)


def rewrite_sidecar(path: Path, **changes: object) -> None:
    sidecar_file = packed.sidecar(path)
    sidecar_file.write_text(json.dumps(json.loads(sidecar_file.read_text()) | changes))


def test_a_sidecar_of_another_shape_is_told_though_the_size_fits(written: Path) -> None:
    rewrite_sidecar(written, shape=[2, 4, 3])
    with pytest.raises(DataError, match=r"expected images of 2x3x4, found 2x4x3 in a\.bin\.json"):
        packed.open_packed(written, SHAPE)


def test_a_sidecar_of_another_file_is_told(written: Path) -> None:
    rewrite_sidecar(written, bytes=425)
    with pytest.raises(DataError, match=r"expected 425 bytes .*a\.bin\.json.*found 424"):
        packed.open_packed(written, SHAPE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"a\.bin\.json: Expecting property name"),
        ("[1]", r"a\.bin\.json: .*shape.*bytes"),
        ('{"shape": "2x3x4", "bytes": 424}', "shape.*bytes"),
    ],
)
def test_a_damaged_sidecar_is_told(written: Path, text: str, message: str) -> None:
    packed.sidecar(written).write_text(text)
    with pytest.raises(DataError, match=message):
        packed.open_packed(written, SHAPE)


def test_a_file_needs_no_sidecar(written: Path) -> None:
    packed.sidecar(written).unlink()
    assert packed.read_sidecar(written) is None
    assert len(packed.open_packed(written, SHAPE).labels) == 4


def test_dying_between_the_renames_leaves_no_wrong_sidecar(written: Path) -> None:
    batches = some_batches()[:1]
    with pytest.raises(TypeError, match="not JSON serializable"):
        packed.write(written, batches, shape=SHAPE, transform=object())  # type: ignore[arg-type]
    assert packed.read_sidecar(written) is None
    assert len(packed.open_packed(written, SHAPE).labels) == 3


def peak_bytes(code: str, *arguments: object) -> int:
    """Peak memory of a process that runs code, above that of one which only imports."""
    start = "import resource, sys\nfrom pathlib import Path\nimport numpy as np\n"
    start += "from job.data import packed\npath = Path(sys.argv[1])\n"
    end = "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"

    def run(body: str) -> int:
        command = [sys.executable, "-c", start + body + end, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    return run(code) - run("")


def test_a_big_file_is_written_in_little_memory(tmp_path: Path) -> None:
    code = """
one = np.ones((10, 3, 224, 224), np.float32), np.zeros(10, np.int64)
packed.write(path, (one for _ in range(20)), shape=(3, 224, 224), transform="none")
"""
    # 120 MB go to the disk; a batch has 6 MB.
    assert peak_bytes(code, tmp_path / "a.bin") < 30_000_000


def test_a_big_file_is_opened_in_little_memory(tmp_path: Path) -> None:
    path, shape, count = tmp_path / "a.bin", (3, 224, 224), 50_000
    with path.open("wb") as file:
        file.write(struct.pack("<q", count))
        file.truncate(8 + count * (4 * 3 * 224 * 224 + 8))
    code = f"""
opened = packed.open_packed(path, {shape})
assert opened.images.shape == ({count}, *{shape})
assert not opened.images[{count - 1}].any()
"""
    # The whole ImageNet validation set, 30 GB, of which a sparse file keeps only the header.
    assert peak_bytes(code, path) < 30_000_000


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.bin: No such file"):
        packed.open_packed(tmp_path / "a.bin", SHAPE)


def test_another_image_size_is_recognised(tmp_path: Path) -> None:
    images = np.zeros((2, 3, 8, 8), np.float32)
    batch = [(images, np.zeros(2, np.int64))]
    packed.write(tmp_path / "a.bin", batch, shape=(3, 8, 8), transform="none")
    with pytest.raises(DataError, match="images of 3x8x8"):
        packed.open_packed(tmp_path / "a.bin", (3, 16, 16))


def test_images_with_nan_are_bad(tmp_path: Path) -> None:
    images = np.zeros((2, *SHAPE), np.float32)
    images[1, 0, 0, 0] = np.nan
    path = tmp_path / "a.bin"
    packed.write(path, [(images, np.zeros(2, np.int64))], shape=SHAPE, transform="none")
    source = PackedImages(path=path, shape=SHAPE, labels=np.zeros(2, np.int64))
    assert source.read(0).shape == (3, 4, 2)
    with pytest.raises(DataError, match="NaN or infinity"):
        source.read(1)


def test_a_failure_leaves_the_old_file(written: Path) -> None:
    before = written.read_bytes()

    def failing() -> Iterator[tuple[Floats, Ints]]:
        yield some_batches()[0]
        raise DataError("a bad image")

    with pytest.raises(DataError, match="a bad image"):
        packed.write(written, failing(), shape=SHAPE, transform="none")
    with pytest.raises(DataError, match=r"a\.bin: no image"):
        packed.write(written, [], shape=SHAPE, transform="none")
    with pytest.raises(DataError, match=r"expected .*3x3x4.* \[3, 2, 3, 4\]"):
        packed.write(written, some_batches(), shape=(3, 3, 4), transform="none")
    assert written.read_bytes() == before
    assert len(list(written.parent.iterdir())) == 2


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    batches = [(np.zeros((10, 3, 64, 64), np.float32), np.zeros(10, np.int64))]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"a\.bin"):
            packed.write(tmp_path / "a.bin", batches, shape=(3, 64, 64), transform="none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_sidecar_of_nothing_but_brackets_is_told(written: Path) -> None:
    packed.sidecar(written).write_text("[" * 50_000)
    with pytest.raises(DataError, match=r"a\.bin\.json: "):
        packed.open_packed(written, SHAPE)


def test_a_file_of_holes_does_not_fill_the_memory(tmp_path: Path) -> None:
    path, count = tmp_path / "a.bin", 200_000_000_000
    path.write_bytes(struct.pack("<q", count))
    os.truncate(path, 8 + count * (4 + 8))
    with pytest.raises(DataError, match=r"100,000,000 images.*200,000,000,000"):
        packed.open_packed(path, (1, 1, 1))


def test_a_pipe_is_no_packed_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.bin")
    with pytest.raises(DataError, match=r"a\.bin: not a regular file"):
        packed.open_packed(tmp_path / "a.bin", SHAPE)
