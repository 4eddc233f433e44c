"""A folder of limited size for downloads from S3, shared by processes and by jobs.

    blobs/AA/HASH        an image or a piece of a file: its SHA-256, then its content
    files/HASH/          files that are opened by their path, with sizes, times and checksums
    files/.HASH/         the same folder during a download; a killed download resumes there

An entry is written under a temporary name, then renamed. It is verified when it is read. If it is
missing or damaged, for example after a crash, it is downloaded again. The least recently used
entries are removed first. A folder in use is locked. The kernel releases the lock when the process
ends.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from job.errors import OutputError
from job.storage.digests import hash_file
from job.storage.files import atomic_write, output_errors, write_json
from job.storage.lock import file_lock, lock

_DIGEST_BYTES = 32
_FILES = ".files.json"
_FOLDERS = "files"
# A process checks the size of the whole cache after it has written this share of the limit.
_STEP = 0.02
_FULL, _EMPTIER = 0.9, 0.8
# An incomplete entry of this age is from a killed process. A large download may be resumed later.
_STALE_BLOB_S, _STALE_FILES_S = 600.0, 24 * 3600.0
_PAUSE_S = 10.0


@dataclass
class Cache:
    """Stores content under a name. Processes that use the same folder share the content.

    Attributes:
        root: the folder; it is created when the first entry is written.
        most_bytes: the size limit; entries that are being written can exceed it.
    """

    root: Path
    most_bytes: int
    _written: int = 0
    _ours: bool | None = None
    _not_before: float = 0.0
    _held: list[int] = field(default_factory=list)

    def get(self, name: str) -> bytes | None:
        """Return a blob, or None if it is missing or damaged."""
        path = self._blob(name)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if not self._is_ours():
            return None
        blob = content[_DIGEST_BYTES:]
        if hashlib.sha256(blob).digest() != content[:_DIGEST_BYTES]:
            _unlink(path)
            return None
        with suppress(OSError):
            os.utime(path)
        return blob

    def put(self, name: str, blob: bytes) -> None:
        """Store a blob of at most 2% of the size limit, if there is space.

        If the disk is full or read-only, store nothing.
        """
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
            # The disk may be full of other files, so do not try again for every blob.
            self._not_before = time.monotonic() + _PAUSE_S
            return
        self._written += len(blob)
        if self._written > self.most_bytes * _STEP:
            self.trim(0)

    def files(self, name: str, bytes_: int, fetch: Callable[[Path], None]) -> Path:
        """Return a folder of files, which stays in the cache until :meth:`release`.

        Args:
            name: identifies the content of the files.
            bytes_: their total size.
            fetch: downloads the files into a folder. The folder keeps the files of a killed
                download.

        Raises:
            OutputError: the cache cannot be written, or 90% of its limit is less than ``bytes_``.
        """
        folder = self.root / _FOLDERS / _hashed(name)
        if bytes_ > self.most_bytes * _FULL:
            raise OutputError(
                f"{name} needs {bytes_:,} bytes, but one input may use at most "
                f"{100 * _FULL:.0f}% of the cache at {self.root}, whose limit is "
                f"{self.most_bytes:,} bytes",
                "Raise storage.cache_gib, or copy the file to a local disk.",
            )
        with output_errors(self.root):
            self._make_folders()
            with file_lock(_lock_of(folder)):
                if not self._hold(folder):
                    self.trim(bytes_)
                    _fill(folder, fetch)
                    self._hold(folder)
        return folder

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """Yield an empty folder on the same disk, which is removed afterwards.

        Raises:
            OutputError: the cache cannot be written.
        """
        with output_errors(self.root):
            self._make_folders()
            # The dot marks an incomplete entry, which is removed later if the process is killed.
            with TemporaryDirectory(dir=self.root / _FOLDERS, prefix=".") as path:
                yield Path(path)

    def kept_files(self, name: str) -> Path | None:
        """Return a folder of files if the cache has it; it is not locked and can be removed."""
        folder = self.root / _FOLDERS / _hashed(name)
        return folder if (folder / _FILES).is_file() else None

    def release(self) -> None:
        """Unlock the folders that :meth:`files` returned."""
        while self._held:
            os.close(self._held.pop())

    def trim(self, room: int) -> None:
        """Remove the least recently used entries until there is room for ``room`` bytes more."""
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

    def _make_folders(self) -> None:
        # Creates the folder again to get the error, if there is one.
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._is_ours():
            raise OutputError(
                f"{self.root} belongs to another user",
                "Set storage.scratch or JOB_SCRATCH to a folder that belongs to you.",
            )
        (self.root / _FOLDERS).mkdir(parents=True, exist_ok=True)

    def _is_ours(self) -> bool:
        """Create the folder, and return whether it belongs to this user.

        Another owner could replace its content.
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
        """Yield time of last use, size and path of each entry; remove stale incomplete entries."""
        now = time.time()
        for shard in _listed(self.root / "blobs"):
            for entry in _listed(Path(shard.path)):
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    old = now - status.st_mtime
                    if entry.name.startswith(".") and old > _STALE_BLOB_S:
                        _unlink(Path(entry.path))
                    yield status.st_mtime, status.st_size, Path(entry.path)
        for entry in _listed(self.root / _FOLDERS):
            if entry.is_dir():
                with suppress(FileNotFoundError):
                    path, used = Path(entry.path), entry.stat().st_mtime
                    yield used, _size(path), path
                    if entry.name.startswith(".") and now - used > _STALE_FILES_S:
                        _remove_unfinished(path)

    def _hold(self, folder: Path) -> bool:
        """Lock a folder and return whether its files are intact; a damaged folder is removed."""
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
    """Download files into a temporary folder, and rename it when all files are complete."""
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
    """Return whether files are unchanged; content is read only if the time differs."""
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
    """Remove an entry unless a process uses it; returns whether it was removed."""
    if not path.is_dir():
        _unlink(path)
        return True
    try:
        with file_lock(path, wait=False, create=False):
            # The description is removed first: a folder without it counts as incomplete.
            _unlink(path / _FILES)
            shutil.rmtree(path, ignore_errors=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _remove_unfinished(path: Path) -> None:
    """Remove the files of a killed download, unless another process has resumed it."""
    with suppress(OSError), file_lock(_lock_of(path), wait=False):
        shutil.rmtree(path)


def _lock_of(folder: Path) -> Path:
    """Return the lock file of a folder during a download; some folders share one."""
    return folder.with_name(f"{folder.name.removeprefix('.')[:2]}.lock")


def _listed(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in _listed(folder))


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
