"""A bounded folder of what was read from S3, shared by processes and by jobs.

    blobs/AA/HASH        an image or a piece of a file: its SHA-256, then its content
    files/HASH/          files that others open by their path, with what they must be
    files/.HASH/         the same while they arrive; a killed transfer goes on there

Each entry appears by one rename and is checked when it is read, so a crash, a full disk or a
damaged disk costs a transfer and no more. What was used longest ago goes first. A folder that a
process uses is locked, and the kernel frees the lock whatever ends the process.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.errors import OutputError
from job.storage.digests import hash_file
from job.storage.files import atomic_write, output_errors, write_json
from job.storage.lock import file_lock, lock

_DIGEST_BYTES = 32
_FILES = ".files.json"
# A process looks at the whole only after writing this share of it.
_STEP = 0.02
_FULL, _EMPTIER = 0.9, 0.8
# An unfinished write this old is of a process that was killed; a big transfer may go on later.
_STALE_BLOB_S, _STALE_FILES_S = 600.0, 24 * 3600.0
_PAUSE_S = 10.0


@dataclass
class Cache:
    """Content by name; processes that use the same folder share it.

    Attributes:
        root: the folder; made when something is put into it.
        most_bytes: what it may hold; exceeded by no more than what is being written.
    """

    root: Path
    most_bytes: int
    _written: int = 0
    _ours: bool | None = None
    _not_before: float = 0.0
    _held: list[int] = field(default_factory=list)

    def get(self, name: str) -> bytes | None:
        """Return a blob, None when it is not there or was damaged."""
        path = self._blob(name)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if not self._is_ours():
            return None
        blob = content[_DIGEST_BYTES:]
        if hashlib.sha256(blob).digest() != content[:_DIGEST_BYTES]:
            _forget(path)
            return None
        with suppress(OSError):
            os.utime(path)
        return blob

    def put(self, name: str, blob: bytes) -> None:
        """Keep a blob if there is room; a disk that is full or read-only does not matter."""
        if len(blob) > self.most_bytes * _STEP or time.monotonic() < self._not_before:
            return
        path = self._blob(name)
        if not self._is_ours():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not flushed to the disk: get() verifies the checksum, and flushing takes time.
            with atomic_write(path, durable=False) as file:
                file.write(hashlib.sha256(blob).digest())
                file.write(blob)
        except (OSError, OutputError):
            self.trim(0)
            # Should the disk be full of other things, do not try at each blob.
            self._not_before = time.monotonic() + _PAUSE_S
            return
        self._written += len(blob)
        if self._written > self.most_bytes * _STEP:
            self.trim(0)

    def files(self, name: str, bytes_: int, fetch: Callable[[Path], None]) -> Path:
        """Return a folder of files, which stays there for as long as this object lives.

        Args:
            name: of the whole.
            bytes_: how much they have.
            fetch: puts them into a folder; what it left there when it was killed is still there.

        Raises:
            OutputError: the cache cannot be written, or is smaller than the files.
        """
        folder = self.root / "files" / _hashed(name)
        if bytes_ > self.most_bytes * _FULL:
            raise OutputError(
                f"the cache in {self.root} may hold {self.most_bytes:,} bytes, too few for "
                f"{bytes_:,} bytes of {name}",
                "Raise storage.cache_gib, or put the file on the machine's own disk.",
            )
        with output_errors(self.root):
            # Says why, should it be impossible.
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_ours():
                raise OutputError(
                    f"{self.root} belongs to another user",
                    "Name a folder of your own with storage.scratch or JOB_SCRATCH.",
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(_lock_of(folder)):
                if not self._hold(folder):
                    self.trim(bytes_)
                    _fill(folder, fetch)
                    self._hold(folder)
        return folder

    def kept_files(self, name: str) -> Path | None:
        """Return a folder of files if it is there; it may go as soon as it is not used."""
        folder = self.root / "files" / _hashed(name)
        return folder if (folder / _FILES).is_file() else None

    def release(self) -> None:
        """Let the folders go that :meth:`files` returned."""
        while self._held:
            os.close(self._held.pop())

    def trim(self, room: int) -> None:
        """Remove what was used longest ago if the whole, with ``room`` bytes more, is too much."""
        self._written = 0
        with suppress(OSError), file_lock(self.root / ".lock", wait=False):
            entries = sorted(self._entries())
            total = sum(size for _, size, _ in entries) + room
            if total <= self.most_bytes * _FULL:
                return
            for _, size, path in entries:
                if total <= self.most_bytes * _EMPTIER:
                    return
                if not path.name.startswith(".") and _remove(path):
                    total -= size

    def _is_ours(self) -> bool:
        """Make the folder, and tell whether it is this user's.

        Whoever else could write to it could put anything in the place of what was read.
        """
        if self._ours is None:
            with suppress(OSError):
                self.root.parent.mkdir(parents=True, exist_ok=True)
                self.root.mkdir(mode=0o700, exist_ok=True)
            try:
                self._ours = self.root.stat().st_uid == os.getuid()
            except OSError:
                return False
        return self._ours

    def _blob(self, name: str) -> Path:
        hashed = _hashed(name)
        return self.root / "blobs" / hashed[:2] / hashed[2:]

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of last use, size and path of each entry; clear half-done ones away."""
        now = time.time()
        for shard in _listed(self.root / "blobs"):
            for entry in _listed(Path(shard.path)):
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    old = now - status.st_mtime
                    if entry.name.startswith(".") and old > _STALE_BLOB_S:
                        _forget(Path(entry.path))
                    yield status.st_mtime, status.st_size, Path(entry.path)
        for entry in _listed(self.root / "files"):
            if entry.is_dir():
                with suppress(FileNotFoundError):
                    path, used = Path(entry.path), entry.stat().st_mtime
                    yield used, _size(path), path
                    if entry.name.startswith(".") and now - used > _STALE_FILES_S:
                        _remove_unfinished(path)

    def _hold(self, folder: Path) -> bool:
        """Lock a folder and tell whether its files are whole; what is not is removed."""
        try:
            descriptor = lock(folder, shared=True, create=False)
        except FileNotFoundError:
            return False
        if _is_whole(folder):
            os.utime(folder)
            self._held.append(descriptor)
            return True
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)
        return False


def _fill(folder: Path, fetch: Callable[[Path], None]) -> None:
    """Fetch files beside the folder and give them its name when all are there."""
    partial = folder.with_name(f".{folder.name}")
    partial.mkdir(exist_ok=True)
    fetch(partial)
    described = {}
    for path in sorted(partial.iterdir()):
        status = path.stat()
        described[path.name] = [status.st_size, status.st_mtime_ns, hash_file(path)]
    write_json(partial / _FILES, described)
    partial.rename(folder)


def _is_whole(folder: Path) -> bool:
    """Tell whether files are as they arrived; content is read only where the time differs."""
    try:
        described: Mapping[str, Any] = json.loads((folder / _FILES).read_bytes())
        for name, (size, time_ns, sha256) in described.items():
            status = (folder / name).stat()
            same = status.st_size == size and (
                status.st_mtime_ns == time_ns or hash_file(folder / name) == sha256
            )
            if not same:
                return False
    except (OSError, ValueError):
        return False
    return True


def _remove(path: Path) -> bool:
    """Remove an entry unless a process uses it; returns whether it is gone."""
    if not path.is_dir():
        _forget(path)
        return True
    try:
        with file_lock(path, wait=False, create=False):
            # The description goes first: what is left of a folder is never taken for whole.
            _forget(path / _FILES)
            shutil.rmtree(path, ignore_errors=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _remove_unfinished(path: Path) -> None:
    """Remove what a killed transfer left, unless another process goes on with it."""
    with suppress(OSError), file_lock(_lock_of(path), wait=False):
        shutil.rmtree(path)


def _lock_of(folder: Path) -> Path:
    """The lock of a folder while it is filled; some folders share one."""
    return folder.with_name(f"{folder.name.removeprefix('.')[:2]}.lock")


def _listed(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in _listed(folder))


def _forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
