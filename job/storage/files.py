"""Atomic writes of files, and error messages for outputs that cannot be written."""

import ctypes
import errno
import glob
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from job.errors import OutputError, UnusableFolder

# Suffix of files that are not complete yet. What a killed process left is recognized by it.
TEMPORARY = ".tmp"
_AGAIN = "then run the same command again: it resumes where it stopped."
_FULL = {
    errno.ENOSPC: ("the disk is full ({free:,} bytes are free)", f"Free some space, {_AGAIN}"),
    errno.EDQUOT: ("the disk quota is exhausted", f"Free some space, {_AGAIN}"),
    errno.EFBIG: (
        "the file would exceed the file size limit",
        f"Raise the limit (ulimit -f) or use another file system, {_AGAIN}",
    ),
}
_FORBIDDEN = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "one part of the path is a file, not a folder",
    errno.EEXIST: "expected a folder, found a file",
}
_ELSEWHERE = (
    "Choose another folder, or change the permissions of this folder. The folder of a run in S3 on "
    "this machine is set by storage.scratch or JOB_SCRATCH."
)


@contextmanager
def output_errors(root: Path) -> Iterator[None]:
    """Translate errors of the file system about an output into an OutputError.

    A full disk is translated for every path. Missing permissions are translated only for ``root``
    and paths above or below it; other errors are raised unchanged.

    Args:
        root: the file or folder that is written.

    Raises:
        UnusableFolder: ``root`` is not writable.
        OutputError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if error.filename else root
        if error.errno in _FULL:
            what, hint = _FULL[error.errno]
            what = what.format(free=free_bytes(where))
            raise OutputError(f"cannot write {where}: {what}", hint) from error
        if error.errno in _FORBIDDEN and _related(where.absolute(), root.absolute()):
            raise UnusableFolder(
                f"cannot write {where}: {_FORBIDDEN[error.errno]}", _ELSEWHERE
            ) from error
        raise


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they are missing.

    Raises:
        UnusableFolder: the file system does not support new folders, for example /proc.
        OSError: the folder cannot be created for another reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise UnusableFolder(f"cannot create folder {path}", _ELSEWHERE) from error


def _related(where: Path, root: Path) -> bool:
    """Return whether one path is below the other: an output is created with its parent folders."""
    return where.is_relative_to(root) or root.is_relative_to(where)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False where its parent cannot be searched."""
    try:
        return path.is_dir()
    except OSError:
        return False


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of a path, which may not exist yet; 0 if unknown."""
    for candidate in (path.absolute(), *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(candidate).free
    return 0


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a new file that replaces ``path`` by one rename if the block succeeds.

    The new file has a temporary name in the same folder, ``.NAME.DIGITS.tmp``. If the block fails,
    the new file is removed and ``path`` stays as it was. A killed process leaves the temporary
    file; :func:`remove_temporary_files` removes it.

    Args:
        path: the file to write or replace.
        durable: flush the file and its folder to the disk, so that a power failure cannot leave an
            empty or truncated file. False is for content that is verified when it is read.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
        OSError: another error of the file system, or an error of the block itself.
    """
    number = int.from_bytes(os.urandom(5), "big")
    temporary = path.with_name(f".{path.name}.{number}{TEMPORARY}")
    with output_errors(path), _named(path, temporary):
        file = temporary.open("x+b")
    try:
        yield file
        with output_errors(path), _named(path, temporary):
            file.flush()
            replace_file(temporary, path, durable=durable)
    finally:
        # After a failed write, closing tries to write again. The first error is the useful one.
        with suppress(OSError):
            file.close()
        temporary.unlink(missing_ok=True)


def replace_file(complete: Path, path: Path, *, durable: bool = True) -> None:
    """Rename a complete file to ``path``, which it replaces.

    Also renames a folder. Its files must be on the disk already.

    Args:
        complete: the file, in the same folder as ``path``.
        path: its final name.
        durable: flush the file, and then the renaming, to the disk.
    """
    if durable:
        sync(complete)
    complete.replace(path)
    if durable:
        sync(path.parent)


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """In an OSError about the temporary file, replace its name by the final name."""
    try:
        yield
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write or replace a file atomically and durably; see :func:`atomic_write`."""
    with output_errors(path), atomic_write(path) as file:
        file.write(content)


def remove_temporary_files(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary files that a killed process left.

    Args:
        folder: the folder; no other process writes to it now.
        names: the files that may have been written there.
    """
    for name in names:
        for path in folder.glob(f".{glob.escape(name)}.*{TEMPORARY}"):
            if path.suffixes[-2][1:].isdecimal():
                path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write or replace a JSON file atomically; JSON has no NaN and no infinity.

    Raises:
        OutputError: the file cannot be written; an older one stays as it was.
        ValueError: the value contains NaN or infinity.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; None if the file is missing or incomplete."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Flush all files of the file system that contains ``path`` to the disk.

    For many small files, one call is much faster than :func:`sync` of each file.

    Raises:
        OSError: a file could not be written to the disk.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; symbolic links are followed.

    Raises:
        OSError: the file cannot be opened or is not a regular file; see ``strerror``.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        # The name contains a NUL byte or half of a surrogate pair.
        raise OSError(errno.EINVAL, "not a valid file name", str(path)) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))
