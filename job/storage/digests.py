"""Checksums of files and folders."""

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from job.errors import DataError

MISSING = "missing"
# A file that changes twice within one tick of the clock keeps its size and time (git has the same
# problem). So the checksum of a file that changed less than 2 s ago is not kept.
_SETTLED_NS = 2_000_000_000


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""


class Digests:
    """SHA-256 of files, kept by path, size and modification time.

    Args:
        store: a JSON file with the checksums of an earlier run; may be missing.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.changed = False
        self._known: dict[str, list[Any]] = {}
        self._identified: dict[Path, str] = {}
        try:
            known = json.loads(store.read_bytes())
        except (OSError, ValueError):
            return  # without the store every file is read again
        if isinstance(known, dict):
            self._known = known

    def sha256(self, path: Path) -> str:
        """Return a file's SHA-256 in hex.

        Raises:
            OSError: the file cannot be read.
        """
        stat = path.stat()
        seen = self._known.get(str(path))
        if seen and seen[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(seen[2])
        digest = hash_file(path)
        if time.time_ns() - stat.st_mtime_ns > _SETTLED_NS:
            self._known[str(path)] = [stat.st_size, stat.st_mtime_ns, digest]
            self.changed = True
        return digest

    def identify(self, path: Path) -> str:
        """Return the identity of an external file or folder. It is computed once for each object.

        A file is identified by its SHA-256. A folder is identified by the name, size and
        modification time of every file below it, because reading a million images would take longer
        than the run. The output folder is excluded if it is below the folder. For a missing path,
        the identity is ``MISSING``.

        Raises:
            DataError: the path exists but cannot be read.
        """
        if path not in self._identified:
            try:
                self._identified[path] = _identify(path, self)
            except OSError as error:
                raise DataError(
                    f"cannot read {error.filename or path}: {error.strerror}",
                    "Check the permissions of the file, and the disk for errors.",
                ) from error
        return self._identified[path]

    def as_json(self) -> Mapping[str, Any]:
        """Return the checksums in the form that the constructor reads."""
        return dict(sorted(self._known.items()))


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file's content in hex."""
    with path.open("rb") as file:
        # Checksums detect damage here, so MD5 is fine where a system forbids it for security.
        new = partial(hashlib.new, algorithm, usedforsecurity=False)
        return hashlib.file_digest(file, new).hexdigest()


def hash_stream(stream: Readable, length: int | None = None) -> tuple[str, int]:
    """Read a stream and return its SHA-256 in hex and the number of bytes read.

    Args:
        stream: read from its current position.
        length: how many bytes to read at most; None means to the end.
    """
    limited = _Limited(stream, length)
    return hashlib.file_digest(limited, "sha256").hexdigest(), limited.count


class _Limited(io.RawIOBase):
    """The first bytes of a stream, counted."""

    def __init__(self, stream: Readable, length: int | None) -> None:
        self._stream = stream
        self._length = length
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = len(buffer)
        if self._length is not None:
            room = min(room, self._length - self.count)
        content = self._stream.read(room) if room else b""
        buffer[: len(content)] = content
        self.count += len(content)
        return len(content)


def _identify(path: Path, digests: Digests) -> str:
    """Identify an external file or folder; raises OSError."""
    if path.is_dir():
        digest = hashlib.sha256()
        output = digests.store.parent
        apart = output.is_dir() and not output.samefile(path)
        above = {_identity(output.stat())} if apart else set()
        for entry in sorted(_entries(path, "", frozenset(above))):
            digest.update(entry.encode("utf-8", "surrogateescape"))
        return f"folder:{digest.hexdigest()}"
    if path.is_file():
        return f"sha256:{digests.sha256(path)}"
    return MISSING


def _identity(status: os.stat_result) -> tuple[int, int]:
    """Return the identity of a file or folder. It does not depend on the path."""
    return status.st_dev, status.st_ino


def _entries(folder: Path | str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Yield ``path size time`` of each file below a folder, without the folders in ``above``.

    Symbolic links are followed, except to a folder that contains the link.
    """
    identity = _identity(Path(folder).stat())
    if identity in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir():
                yield from _entries(entry.path, f"{name}/", above | {identity})
                continue
            try:
                stat = entry.stat()
            except FileNotFoundError:
                yield f"{name}\0broken link\n"
            else:
                yield f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
