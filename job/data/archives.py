"""Unpack an archive of images once, so that they can be read in any order.

All files are written below a new folder. Paths in the archive to other places are rejected.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from job.data.archive_reading import (
    UNPACK_HINT,
    Archive,
    ArchiveEntry,
    Limits,
    LocalArchive,
    Progress,
    archive_errors,
    checked_name,
    entries,
)
from job.errors import DataError
from job.storage.digests import hash_file
from job.storage.files import (
    open_regular,
    output_errors,
    replace_file,
    sync_file_system,
    write_json,
)
from job.storage.lock import lock

_CHUNK_BYTES = 1 << 20
_MARKER = "archive.json"
_FILES = "files"
_PARTIAL = ".partial-"
_DEFAULT_LIMITS = Limits()


def unpack(
    archive: Path,
    cache: Path,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Path:
    """Unpack an archive below ``cache``, unless an earlier run has unpacked it.

    Args:
        archive: a .tar, .tar.gz, .tgz or .zip file.
        cache: a folder for unpacked archives, created if missing; several runs may share it.
        limits: limits for unpacking.
        progress: called with the number of bytes read from the archive and its size.

    Returns:
        The folder with the files of the archive. The folder is complete, because it is renamed
        after all files are written and flushed to the disk.

    Raises:
        DataError: the archive is missing, damaged, or exceeds a limit.
        OutputError: the cache cannot be written.
    """
    try:
        with open_regular(archive) as file:
            status = os.fstat(file.fileno())
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error.strerror}", "Check data.root.") from error
    identity = {
        "archive": str(archive.resolve()),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }

    def digest() -> str:
        return hash_file(archive)

    return _unpacked(LocalArchive(archive), identity, digest, cache, limits, progress)


def unpack_object(
    archive: Archive,
    identity: Mapping[str, Any],
    cache: Path,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Path:
    """Unpack an archive while it is downloaded; see :func:`unpack`.

    Args:
        archive: the archive.
        identity: identifies its content.
        cache: see :func:`unpack`.
        limits: see :func:`unpack`.
        progress: see :func:`unpack`.
    """

    def digest() -> str:
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    return _unpacked(archive, identity, digest, cache, limits, progress)


def _unpacked(
    archive: Archive,
    identity: Mapping[str, Any],
    digest: Callable[[], str],
    cache: Path,
    limits: Limits,
    progress: Progress | None,
) -> Path:
    with output_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        # Two runs that share a cache must not unpack the same archive at the same time.
        descriptor = lock(cache / ".lock")
    try:
        for marker in sorted(cache.glob(f"*/{_MARKER}")):
            if identity.items() <= _read_marker(marker).items():
                return marker.parent / _FILES
        content = digest()
        folder = cache / f"{archive.name}-{content[:16]}"
        if not (folder / _MARKER).is_file():
            _unpack_new(archive, folder, limits, progress)
        write_json(folder / _MARKER, {**identity, "digest": content})
    finally:
        os.close(descriptor)
    return folder / _FILES


def _read_marker(path: Path) -> Mapping[str, Any]:
    try:
        marker = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _unpack_new(archive: Archive, folder: Path, limits: Limits, progress: Progress | None) -> None:
    cache = folder.parent
    with output_errors(cache):
        # This run holds the lock, so these folders are from killed runs.
        for stale in cache.glob(f"{_PARTIAL}*"):
            shutil.rmtree(stale)
        shutil.rmtree(folder, ignore_errors=True)
        partial = cache / f"{_PARTIAL}{folder.name}"
        (partial / _FILES).mkdir(parents=True)
    try:
        with archive_errors(archive):
            for entry in entries(archive, limits, progress):
                _save(entry, archive, partial / _FILES)
        with output_errors(folder):
            # Without it, a power failure could leave empty files in a folder with its final name.
            sync_file_system(partial)
            replace_file(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save(entry: ArchiveEntry, archive: Archive, folder: Path) -> None:
    target = folder / checked_name(entry.name, archive)
    with output_errors(target), _name_errors(archive, entry.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")
    with file:
        written = _copy(entry.content, file, target)
    if written != entry.size:
        raise DataError(
            f"{archive}: {entry.name!r}: expected {entry.size:,} bytes, found {written:,}; the "
            "archive is truncated or damaged",
            "Download the archive again and compare its checksum.",
        )


@contextmanager
def _name_errors(archive: Archive, name: str) -> Iterator[None]:
    """Translate errors that come from the name of an entry, not from the disk."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            f"{archive}: {name!r} is in the archive twice, or both as a file and as a folder",
            "Create the archive again, with each name once.",
        ) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise DataError(
            f"{archive}: {name[:80]!r}... is too long for a file name", UNPACK_HINT
        ) from error


def _copy(source: IO[bytes], target: BinaryIO, path: Path) -> int:
    written = 0
    while chunk := source.read(_CHUNK_BYTES):
        with output_errors(path):
            target.write(chunk)
        written += len(chunk)
    with output_errors(path):
        target.flush()
    return written
