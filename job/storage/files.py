"""Writing files so that a reader sees all of one or nothing, and saying why it cannot be done."""

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

from job.errors import OutputError

# Suffix of files that are not complete yet. What a killed process left is recognized by it.
TEMPORARY = ".tmp"
_AGAIN = "then run the same command again: it goes on where it stopped."
_FULL = {
    errno.ENOSPC: ("the disk is full, {free:,} bytes are free", f"Free some space, {_AGAIN}"),
    errno.EDQUOT: ("the disk quota is used up", f"Free some space, {_AGAIN}"),
    errno.EFBIG: (
        "the file would exceed the size that is allowed",
        f"Raise that limit (ulimit -f) or use another file system, {_AGAIN}",
    ),
}
_FORBIDDEN = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a file stands where a folder must be",
}
_ELSEWHERE = (
    "Choose another folder, or change who may write there. What `job run` writes to is named by "
    "--output; for a run in S3, by storage.scratch or JOB_SCRATCH."
)


@contextmanager
def output_errors(root: Path) -> Iterator[None]:
    """Translate what the file system says about the output into an OutputError.

    A refusal that concerns a file outside ``root`` is no fault of the output and flies on; a full
    disk counts wherever it is met.
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
            raise OutputError(
                f"cannot write {where}: {_FORBIDDEN[error.errno]}", _ELSEWHERE
            ) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        OutputError: there can be none, as in /proc.
        OSError: for another reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise OutputError(f"cannot write {path}: it cannot be made there", _ELSEWHERE) from error


def _related(where: Path, root: Path) -> bool:
    """Tell whether one path is below the other: folders above the output are created with it."""
    return where.is_relative_to(root) or root.is_relative_to(where)


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; False where its parent cannot be searched."""
    try:
        return path.is_dir()
    except OSError:
        return False


def free_bytes(path: Path) -> int:
    """Return the bytes free on the disk of a path that need not exist yet; 0 when unknown."""
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
    """Make an OSError about the temporary file name the file that the user knows."""
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
        folder: one to which no other process writes now.
        names: the files that may have been written there.
    """
    for name in names:
        for path in folder.glob(f".{glob.escape(name)}.*{TEMPORARY}"):
            if path.suffixes[-2][1:].isdecimal():
                path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a JSON value; NaN and infinity are refused, as JSON has none.

    Raises:
        OutputError: the file cannot be written; an older one stays as it was.
        ValueError: the value holds NaN or infinity.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Return a JSON file's value; None when it is missing or not whole."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def sync(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    Raises:
        OSError: it cannot be opened, or is something else; ``strerror`` says so.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        # A NUL byte, or half of a surrogate pair.
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))
