"""Locks on files and folders, and the lock of an output folder."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.errors import OutputError

NAME = ".lock"
_ORPHAN_SECONDS = 3.0
_HOLDER = {"pid", "host", "started"}


def lock(path: Path, *, shared: bool = False, wait: bool = True, create: bool = True) -> int:
    """Lock a file or a folder, and return its descriptor. Closing the descriptor releases the lock.

    The kernel also releases the lock when the last process that holds the descriptor ends.

    Args:
        path: a file, or, with ``create=False``, an existing file or folder.
        shared: allow other shared locks; otherwise the lock is exclusive.
        wait: wait while another process holds the lock.
        create: create the file if it is missing.

    Raises:
        BlockingIOError: another process holds the lock, and ``wait`` is False.
        OSError: the file cannot be opened or created.
    """
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def file_lock(path: Path, *, wait: bool = True, create: bool = True) -> Iterator[int]:
    """Hold an exclusive lock during the block; see :func:`lock`."""
    descriptor = lock(path, wait=wait, create=create)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the lock of an output folder and yield its file descriptor.

    Worker processes inherit the descriptor. If a worker still runs after the run's process has
    ended, the folder stays locked.

    Raises:
        OutputError: another run holds the lock; the message names its process.
        OSError: the lock file cannot be written.
    """
    descriptor = _acquire(root)
    try:
        _write(descriptor, _ourselves())
        yield descriptor
        _write(descriptor, {})
    finally:
        os.close(descriptor)


def is_our_lock(root: Path) -> bool:
    """Return whether a folder has a lock file that this program wrote."""
    try:
        holder = json.loads((root / NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(holder, dict) and holder.keys() in (set(), _HOLDER)


def _acquire(root: Path) -> int:
    """Take the lock. Wait a short time for the worker process of a killed run to end."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        try:
            return lock(root / NAME, wait=False)
        except BlockingIOError as error:
            holder = _read(root / NAME)
            if _may_live(holder) or time.monotonic() > deadline:
                raise OutputError(
                    f"cannot lock {root}: another run is writing to it: {_describe(holder)}",
                    "Wait for the other run, stop it, or choose another folder with --output.",
                ) from error
            time.sleep(0.05)


def _ourselves() -> Mapping[str, Any]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _may_live(holder: Mapping[str, Any]) -> bool:
    """Return whether the process that wrote the lock may still run; True for another machine."""
    if not holder or holder.get("host") != socket.gethostname():
        return bool(holder)
    return Path("/proc", str(holder.get("pid"))).exists()


def _describe(holder: Mapping[str, Any]) -> str:
    if not holder:
        return "an unknown process"
    text = "process {pid} on {host}, started {started}".format(**holder)
    return text if _may_live(holder) else f"{text} (it has ended; its worker process still runs)"


def _write(descriptor: int, holder: Mapping[str, Any]) -> None:
    text = json.dumps(holder).encode()
    # Padded instead of truncated first: a kill in between must not leave an empty file.
    os.pwrite(descriptor, text.ljust(os.fstat(descriptor).st_size), 0)
    os.ftruncate(descriptor, len(text))


def _read(path: Path) -> Mapping[str, Any]:
    """Return the process that holds the lock; empty if the file cannot be read."""
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    known = isinstance(holder, dict) and holder.keys() >= _HOLDER
    return holder if known else {}
