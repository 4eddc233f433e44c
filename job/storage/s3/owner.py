"""Who is at work: enough to tell a person, and for this machine to know whether it still is."""

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

_STATE, _START_TICKS = 0, 19


def ourselves() -> dict[str, Any]:
    """Describe this process, for others to find in a claim."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": _first_asked(),
        "process": {"kernel": _kernel(), "start": _start(os.getpid())},
    }


def known_gone(owner: Mapping[str, Any]) -> bool:
    """Tell whether a process that described itself is gone for certain.

    Only a process of this very kernel and process namespace can be looked for; of another machine,
    or another container, nothing is known.
    """
    process, pid = owner.get("process"), owner.get("pid")
    if not isinstance(process, dict) or not isinstance(pid, int) or not process.get("start"):
        return False
    if not _kernel() or process.get("kernel") != _kernel():
        return False
    return bool(_start(pid) != process["start"])


@cache
def _first_asked() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _kernel() -> str:
    """Identify the running kernel and this process's namespace; empty if that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start(pid: int) -> str:
    """Return when a process started, in ticks since boot; empty if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The name before the last bracket may hold anything.
    fields = text.rpartition(")")[2].split()
    return "" if fields[_STATE] in "ZX" else fields[_START_TICKS]
