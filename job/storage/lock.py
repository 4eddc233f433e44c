"""One run at a time writes to an output folder."""

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


@contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the lock of an output folder and yield its file descriptor.

    The kernel frees the lock when the last process that holds the descriptor is gone. Worker
    processes inherit it, so that a worker which outlives its run keeps other runs out.

    Raises:
        OutputError: another run holds the lock; the message says which.
        OSError: the lock's file cannot be written.
    """
    descriptor = os.open(root / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, root)
        _write(descriptor, _ourselves())
        yield descriptor
        _write(descriptor, {})
    finally:
        os.close(descriptor)


def is_our_lock(root: Path) -> bool:
    """Tell whether a folder holds a lock file of this program: that of others says other things."""
    try:
        holder = json.loads((root / NAME).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(holder, dict) and holder.keys() in (set(), _HOLDER)


def _acquire(descriptor: int, root: Path) -> None:
    """Take the lock, giving the dying worker of a killed run a moment to go."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read(descriptor)
            if _may_live(holder) or time.monotonic() > deadline:
                raise OutputError(
                    f"{root} is being written by another run: {_describe(holder)}",
                    "Wait for it to end, stop it, or choose another folder with --output.",
                ) from error
            time.sleep(0.05)
        else:
            return


def _ourselves() -> Mapping[str, Any]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _may_live(holder: Mapping[str, Any]) -> bool:
    """Tell whether the process that wrote the lock may still run; unknown counts as yes."""
    if not holder or holder.get("host") != socket.gethostname():
        return bool(holder)
    return Path("/proc", str(holder.get("pid"))).exists()


def _describe(holder: Mapping[str, Any]) -> str:
    if not holder:
        return "a process that did not say who it is"
    text = "process {pid} on {host}, started {started}".format(**holder)
    return text if _may_live(holder) else f"{text}, which is gone but left a worker behind"


def _write(descriptor: int, holder: Mapping[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _read(descriptor: int) -> Mapping[str, Any]:
    """Return who holds the lock; empty when that cannot be read."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    known = isinstance(holder, dict) and holder.keys() >= _HOLDER
    return holder if known else {}
