"""Describes this machine: CPU, memory, and the limits of the container.

All values are read from ``/proc`` and ``/sys``. Tests can pass another root folder. CPU and memory
limits are read from the control groups (version 1 and 2), because ``/proc`` shows all cores of the
host, also in a container.
"""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VNNI = "avx512_vnni"
# CPU flags that select a kernel or change its arithmetic. The others do not affect results.
_ISA_FLAG = re.compile(r"(s?sse|avx|amx|fma|f16c|bmi|gfni|asimd|sve|i8mm|bf16)")
# Version 1 writes "no limit" as the largest multiple of a page below 2^63.
_NO_MEMORY_LIMIT = 1 << 60
_CGROUP = Path("sys/fs/cgroup")
# Allocators that can replace glibc's with LD_PRELOAD.
_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


@dataclass(frozen=True)
class Host:
    """A machine and the limits of this process on it.

    Attributes:
        cpu_model: name of the processor.
        flags: instruction set extensions, sorted, with the names in ``/proc/cpuinfo``.
        microcode: version of the microcode, or empty.
        cores: number of logical cores that are online.
        affinity: number of cores that this process may run on.
        quota_cores: CPU limit of the control group in cores; None if unlimited.
        memory_bytes: the machine's memory, or the control group's limit if it is smaller.
        memory_limited: whether ``memory_bytes`` is the limit of a control group.
        kernel: release of the kernel.
        allocator: ``glibc``, or the preloaded allocator. Small INT8 calls spend a tenth of their
            time in the allocator.
    """

    cpu_model: str
    flags: tuple[str, ...]
    microcode: str
    cores: int
    affinity: int
    quota_cores: float | None
    memory_bytes: int
    memory_limited: bool
    kernel: str
    allocator: str

    @property
    def has_vnni(self) -> bool:
        """Whether INT8 dot products are exact and fast (AVX512_VNNI)."""
        return VNNI in self.flags

    @property
    def usable_cores(self) -> int:
        """Number of cores that can run at the same time, at least 1.

        A fractional CPU limit is rounded down. OpenMP threads wait for each other at barriers. If
        there were more threads than the limit allows, one of them would be throttled and would
        delay all other threads.
        """
        if self.quota_cores is None:
            return max(1, self.affinity)
        # A limit of 199900/100000 us is meant to be two cores.
        return max(1, min(self.affinity, int(self.quota_cores + 0.01)))

    def as_report(self) -> dict[str, Any]:
        """Return the ``host`` object of report.json."""
        return {
            "cpu_model": self.cpu_model,
            "flags": list(self.flags),
            "microcode": self.microcode,
            "cores": self.cores,
            "quota_cores": self.quota_cores,
            "memory_bytes": self.memory_bytes,
            "kernel": self.kernel,
            "allocator": self.allocator,
        }


def read_host(root: Path = Path("/"), *, affinity: int | None = None) -> Host:
    """Return a description of this machine.

    Args:
        root: folder that contains ``proc`` and ``sys``.
        affinity: number of cores that this process may use; None reads it from the kernel.
    """
    cpuinfo = _text(root / "proc/cpuinfo")
    fields = _first_processor(cpuinfo)
    total = _total_memory(_text(root / "proc/meminfo"))
    limit = memory_limit(root)
    flags = fields.get("flags") or fields.get("Features") or ""
    return Host(
        cpu_model=fields.get("model name") or platform.machine(),
        flags=tuple(sorted(flag for flag in flags.split() if _ISA_FLAG.match(flag))),
        microcode=fields.get("microcode", ""),
        cores=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or os.cpu_count() or 1,
        affinity=affinity or len(os.sched_getaffinity(0)),
        quota_cores=quota_cores(root),
        memory_bytes=min(total or limit, limit) if limit else total,
        memory_limited=limit is not None and limit < total,
        kernel=_text(root / "proc/sys/kernel/osrelease").strip(),
        allocator=_allocator(_text(root / "proc/self/maps")),
    )


def _allocator(maps: str) -> str:
    """Return the name of the memory allocator that this process has loaded."""
    return next((name for name in _ALLOCATORS if f"lib{name}" in maps), "glibc")


def usable_cores() -> int:
    """Return how many threads of this process can run at the same time, at least 1."""
    return read_host().usable_cores


def quota_cores(root: Path = Path("/")) -> float | None:
    """Return the lowest CPU limit, in cores, of this process's control groups, or None."""
    quotas = []
    for folder in _groups(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:
            quota = _text(folder / "cpu.cfs_quota_us")
            period = _text(folder / "cpu.cfs_period_us")
        if _number(quota) > 0 and _number(period) > 0:
            quotas.append(_number(quota) / _number(period))
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the lowest memory limit, in bytes, of this process's control groups, or None."""
    limits = []
    for folder in _groups(root, "memory"):
        text = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")
        if 0 < _number(text) < _NO_MEMORY_LIMIT:
            limits.append(_number(text))
    return min(limits, default=None)


@dataclass(frozen=True)
class Throttling:
    """Number of times the container reached its CPU limit, and time throttled, since its start."""

    periods: int
    seconds: float


def throttling(root: Path = Path("/")) -> Throttling:
    """Return the throttling of all control groups of this process, added up."""
    periods, seconds = 0, 0.0
    for folder in _groups(root, "cpu"):
        pairs = (line.split() for line in _text(folder / "cpu.stat").splitlines())
        counters = {pair[0]: _number(pair[1]) for pair in pairs if len(pair) == 2}
        periods += counters.get("nr_throttled", 0)
        # Version 2 counts microseconds, version 1 nanoseconds.
        seconds += counters.get("throttled_usec", 0) / 1e6
        seconds += counters.get("throttled_time", 0) / 1e9
    return Throttling(periods, seconds)


def oom_kills(root: Path = Path("/")) -> int:
    """Return how many processes of this control group the kernel killed for lack of memory."""
    for folder in _groups(root, "memory"):
        text = _text(folder / "memory.events") or _text(folder / "memory.oom_control")
        match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        if match:
            return int(match.group(1))
    return 0


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and its ancestors, innermost first."""
    memberships = _memberships(_text(root / "proc/self/cgroup"))
    mounts = [(_CGROUP, memberships.get("")), (_CGROUP / "unified", memberships.get(""))]
    for names, group_path in memberships.items():
        if controller in names.split(","):
            # Old kernels list two controllers in another order than in the folder's name.
            named = _CGROUP / names
            mounts.append((named if (root / named).is_dir() else _CGROUP / controller, group_path))
    for mount, path in mounts:
        if path is None:
            continue
        # Without its own cgroup namespace, a container reads the host's path, but mounts only its
        # own control group.
        group = Path(path.lstrip("/"))
        for relative in (group, *group.parents) if group.parts else (group,):
            if ".." not in relative.parts:
                yield root / mount / relative


def _memberships(text: str) -> Mapping[str, str]:
    """Return the group's path by controller list (version 1) or empty string (version 2)."""
    lines = (line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2)
    return {controllers: path for _, controllers, path in lines}


def _first_processor(cpuinfo: str) -> Mapping[str, str]:
    """Return the fields of the first processor in ``/proc/cpuinfo``."""
    block = cpuinfo.split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _total_memory(meminfo: str) -> int:
    """Return the machine's memory in bytes, 0 if unknown."""
    match = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def _number(text: str) -> int:
    """Return an integer; 0 for ``max``, -1 and other texts that mean no limit."""
    stripped = text.strip()
    return int(stripped) if stripped.isdigit() else 0


def _text(path: Path) -> str:
    """Return the content of a kernel file; empty if this kernel does not have the file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
