"""The cache of downloads from S3."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from job.errors import OutputError
from job.storage.cache import Cache

KIB = 1024


def held(root: Path) -> int:
    """Bytes in a cache."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def writes(content: bytes, name: str = "w.bin") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def refuses(folder: Path) -> None:
    raise AssertionError("it is there already")


class TestBlobs:
    def test_kept_until_asked_for(self, tmp_path: Path) -> None:
        Cache(tmp_path, 100_000 * KIB).put("a", b"content")
        other = Cache(tmp_path, 100_000 * KIB)
        assert other.get("a") == b"content"
        assert other.get("b") is None

    @pytest.mark.parametrize("keep", [0, 10, 32, 35])
    def test_a_damaged_one_is_not_returned(self, tmp_path: Path, keep: int) -> None:
        cache = Cache(tmp_path, 100_000 * KIB)
        cache.put("a", b"content")
        (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
        path.write_bytes(path.read_bytes()[:keep])
        assert cache.get("a") is None
        assert not path.exists()

    def test_what_was_used_longest_ago_goes_first(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path, 1000 * KIB)
        now = time.time()
        for number in range(200):
            cache.put(str(number), bytes(10 * KIB))
            for path in cache.root.rglob("blobs/*/*"):
                if cache.get("0") and path == cache._blob(str(number)):
                    os.utime(path, (now - 1000 + number,) * 2)
        assert held(tmp_path) <= 1000 * KIB
        assert cache.get("0") is not None
        assert cache.get("1") is None
        assert cache.get("199") is not None

    def test_one_that_is_large_for_the_cache_is_not_kept(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path, 100 * KIB)
        cache.put("a", bytes(10 * KIB))
        assert cache.get("a") is None

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
    def test_a_disk_that_takes_nothing_does_not_matter(
        self, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried = []

        def refuse(self: Path, *given: object) -> None:
            tried.append(self)
            raise OSError(number, os.strerror(number))

        cache = Cache(tmp_path, 1000 * KIB)
        monkeypatch.setattr(Path, "replace", refuse)
        cache.put("a", b"content")
        cache.put("b", b"content")
        assert cache.get("a") is None
        # Not once more for each image of a training.
        assert len(tried) == 1
        assert held(tmp_path) == 0


WRITER = """
import sys
from pathlib import Path
from job.storage.cache import Cache
cache = Cache(Path(sys.argv[1]), 2000 * 1024)
for number in range(10**9):
    name = str(number % 300)
    content = (name * 4000).encode()[:7000]
    found = cache.get(name)
    assert found in (None, content), name
    cache.put(name, content)
    if number == 50:
        print("warm", flush=True)
"""


def test_processes_that_are_killed_leave_only_whole_content(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    for _ in range(3):
        crowd = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
        for process in crowd:
            assert process.stdout is not None
            assert process.stdout.readline() == b"warm\n"
            time.sleep(0.1)
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    cache = Cache(tmp_path, 2000 * KIB)
    found = [cache.get(str(number)) for number in range(300)]
    for number, content in enumerate(found):
        assert content in (None, (str(number) * 4000).encode()[:7000])
    assert any(found)
    cache.trim(0)
    # Each writer may be ahead of the count by the share that it writes before it looks.
    assert held(tmp_path) <= 2000 * KIB


class TestFiles:
    def test_fetched_once_and_held(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path, 1000 * KIB)
        folder = cache.files("a", 500 * KIB, writes(bytes(500 * KIB)))
        other = Cache(tmp_path, 1000 * KIB)
        assert other.files("a", 500 * KIB, refuses) == folder
        other.trim(900 * KIB)
        assert (folder / "w.bin").exists()
        cache.release()
        other.trim(900 * KIB)
        assert (folder / "w.bin").exists()
        other.release()
        other.trim(900 * KIB)
        assert not folder.exists()

    def test_another_process_does_not_remove_what_is_held(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path, 1000 * KIB)
        folder = cache.files("a", 500 * KIB, writes(bytes(500 * KIB)))
        trim = "import sys; from pathlib import Path; from job.storage.cache import Cache; "
        trim += "Cache(Path(sys.argv[1]), 1000 * 1024).trim(900 * 1024)"
        subprocess.run([sys.executable, "-c", trim, str(tmp_path)], check=True)
        assert (folder / "w.bin").exists()

    @pytest.mark.parametrize("damage", ["content", "size", "gone"])
    def test_damaged_ones_are_fetched_again(self, tmp_path: Path, damage: str) -> None:
        cache = Cache(tmp_path, 1000 * KIB)
        path = cache.files("a", 7, writes(b"content")) / "w.bin"
        cache.release()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(b"c0ntent" if damage == "content" else b"content!")
        assert (cache.files("a", 7, writes(b"content")) / "w.bin").read_bytes() == b"content"

    def test_a_transfer_that_failed_goes_on_with_what_is_there(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path, 1000 * KIB)

        def breaks(folder: Path) -> None:
            (folder / "w.bin").write_bytes(b"cont")
            raise ConnectionResetError

        def goes_on(folder: Path) -> None:
            with (folder / "w.bin").open("ab") as file:
                assert file.tell() == 4
                file.write(b"ent")

        with pytest.raises(ConnectionResetError):
            cache.files("a", 7, breaks)
        assert cache.kept_files("a") is None
        assert (cache.files("a", 7, goes_on) / "w.bin").read_bytes() == b"content"

    def test_larger_than_the_cache(self, tmp_path: Path) -> None:
        with pytest.raises(
            OutputError, match=r"204,800 bytes.*102,400 bytes(.|\n)*storage\.cache_gib"
        ):
            Cache(tmp_path, 100 * KIB).files("a", 200 * KIB, refuses)

    def test_a_full_disk(self, tmp_path: Path) -> None:
        def full(folder: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "w.bin"))

        with pytest.raises(OutputError, match="the disk is full"):
            Cache(tmp_path, 1000 * KIB).files("a", 7, full)

    def test_room_is_made_before_and_what_is_half_done_stays(self, tmp_path: Path) -> None:
        cache = Cache(tmp_path, 1000 * KIB)
        for number in range(80):
            cache.put(str(number), bytes(10 * KIB))
        cache.files("a", 500 * KIB, writes(bytes(500 * KIB)))
        assert held(tmp_path) <= 1000 * KIB
        half = tmp_path / "files/.half"
        half.mkdir()
        cache.trim(500 * KIB)
        assert half.exists()
        os.utime(half, (1, 1))
        cache.trim(500 * KIB)
        assert not half.exists()


def test_a_folder_of_another_user_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cache(tmp_path, 100_000 * KIB).put("a", b"content")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    cache = Cache(tmp_path, 100_000 * KIB)
    assert cache.get("a") is None
    cache.put("b", b"content")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    with pytest.raises(OutputError, match="belongs to another user"):
        cache.files("c", 7, refuses)


def test_the_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    Cache(tmp_path / "new", 100_000 * KIB).put("a", b"content")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "scratch").write_text("")
    cache = Cache(tmp_path / "scratch/inputs", 1_000_000)
    with pytest.raises(OutputError, match="scratch"):
        cache.files("weights", 10, lambda folder: None)
