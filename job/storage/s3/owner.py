"""Describe a process for messages, and check on the same machine whether it has ended."""

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

_STATE, _START_TICKS = 0, 19


def ourselves() -> dict[str, Any]:
    """Describe this process, for its claim."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": _started(),
        "process": {"kernel": _kernel(), "start": _start(os.getpid())},
    }


def known_gone(owner: Mapping[str, Any]) -> bool:
    """Return whether a process has certainly ended.

    Only a process of the same kernel and process namespace can be checked. The result is False for
    a process on another machine or in another container.
    """
    process, pid = owner.get("process"), owner.get("pid")
    if not isinstance(process, dict) or not isinstance(pid, int) or not process.get("start"):
        return False
    if not _kernel() or process.get("kernel") != _kernel():
        return False
    return bool(_start(pid) != process["start"])


@cache
def _started() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _kernel() -> str:
    """Identify the running kernel and the process namespace; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start(pid: int) -> str:
    """Return the start time of a process in ticks since boot; empty if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The process name before the last bracket can contain any character.
    fields = text.rpartition(")")[2].split()
    return "" if fields[_STATE] in "ZX" else fields[_START_TICKS]
