"""What this machine is and how much of it the job may use.

Every figure comes from ``/proc`` and ``/sys`` below a root that a test can replace. Control groups
are read in both versions, since a container sees the host's cores and not its own quota.
"""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VNNI = "avx512_vnni"
# Flags that choose a kernel or change its arithmetic; the other hundred say nothing about speed.
_ISA_FLAG = re.compile(r"(s?sse|avx|amx|fma|f16c|bmi|gfni|asimd|sve|i8mm|bf16)")
# Version 1 writes "no limit" as the largest multiple of a page below 2^63.
_NO_MEMORY_LIMIT = 1 << 60
_CGROUP = Path("sys/fs/cgroup")
# Allocators that are put in glibc's place with LD_PRELOAD.
_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


@dataclass(frozen=True)
class Host:
    """One machine, as the job sees it.

    Attributes:
        cpu_model: the processor's name.
        flags: its instruction set extensions, sorted, as ``/proc/cpuinfo`` names them.
        microcode: its microcode's version, or empty.
        cores: logical cores that are online.
        affinity: cores that this process may be scheduled on.
        quota_cores: the control group's CPU quota over its period; None when unlimited.
        memory_bytes: the machine's memory or the control group's limit, whichever is less.
        memory_limited: whether a control group sets ``memory_bytes``.
        kernel: the kernel's release.
        allocator: ``glibc``, or what was preloaded in its place: small INT8 calls spend a tenth of
            their time in it.
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
        """True when INT8 dot products are exact and quick (AVX512_VNNI)."""
        return VNNI in self.flags

    @property
    def usable_cores(self) -> int:
        """Cores that can work at the same time, at least 1.

        A fractional quota is rounded down: OpenMP threads wait for each other at barriers, so one
        more thread than the quota feeds is throttled, and all others wait for it.
        """
        if self.quota_cores is None:
            return max(1, self.affinity)
        # A quota of 199900/100000 us is meant as two cores.
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
    """Describe the machine.

    Args:
        root: folder that holds ``proc`` and ``sys``.
        affinity: cores that this process may use; None asks the kernel.
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
    """Return the name of the memory allocator among the libraries of this process."""
    return next((name for name in _ALLOCATORS if f"lib{name}" in maps), "glibc")


def usable_cores() -> int:
    """Return how many threads of this process can work at the same time, at least 1."""
    return read_host().usable_cores


def quota_cores(root: Path = Path("/")) -> float | None:
    """Return the tightest CPU quota in cores over all control groups above this process."""
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
    """Return the tightest memory limit in bytes over all control groups above this process."""
    limits = []
    for folder in _groups(root, "memory"):
        text = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")
        if 0 < _number(text) < _NO_MEMORY_LIMIT:
            limits.append(_number(text))
    return min(limits, default=None)


@dataclass(frozen=True)
class Throttling:
    """How often a CPU quota was used up, and how long processes waited then, since the start."""

    periods: int
    seconds: float


def throttling(root: Path = Path("/")) -> Throttling:
    """Return what all control groups above this process were throttled by their quotas."""
    periods, seconds = 0, 0.0
    for folder in _groups(root, "cpu"):
        pairs = (line.split() for line in _text(folder / "cpu.stat").splitlines())
        found = {pair[0]: _number(pair[1]) for pair in pairs if len(pair) == 2}
        periods += found.get("nr_throttled", 0)
        # Version 2 counts microseconds, version 1 nanoseconds.
        seconds += found.get("throttled_usec", 0) / 1e6 + found.get("throttled_time", 0) / 1e9
    return Throttling(periods, seconds)


def oom_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel killed for want of memory in this control group."""
    for folder in _groups(root, "memory"):
        text = _text(folder / "memory.events") or _text(folder / "memory.oom_control")
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        if found:
            return int(found.group(1))
    return 0


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those above it, innermost first."""
    memberships = _memberships(_text(root / "proc/self/cgroup"))
    mounts = [(_CGROUP, memberships.get("")), (_CGROUP / "unified", memberships.get(""))]
    for names, group_path in memberships.items():
        if controller in names.split(","):
            # Old kernels list two controllers in another order than their folder is called.
            named = _CGROUP / names
            mounts.append((named if (root / named).is_dir() else _CGROUP / controller, group_path))
    for mount, path in mounts:
        if path is None:
            continue
        # A container without a namespace of its own sees the host's path, but its own mount.
        group = Path(path.lstrip("/"))
        for relative in (group, *group.parents) if group.parts else (group,):
            if ".." not in relative.parts:
                yield root / mount / relative


def _memberships(text: str) -> Mapping[str, str]:
    """Map a version 1 controller list, or the empty string for version 2, to the group's path."""
    lines = (line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2)
    return {controllers: path for _, controllers, path in lines}


def _first_processor(cpuinfo: str) -> Mapping[str, str]:
    """Return the fields of the first processor in ``/proc/cpuinfo``."""
    block = cpuinfo.split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _total_memory(meminfo: str) -> int:
    """Return the machine's memory in bytes, 0 when unknown."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _number(text: str) -> int:
    """Read an integer; 0 for ``max``, -1 and anything else that means no limit."""
    stripped = text.strip()
    return int(stripped) if stripped.isdigit() else 0


def _text(path: Path) -> str:
    """Read a file of the kernel's; empty where this kernel has none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
