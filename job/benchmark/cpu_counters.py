"""Reads the kernel's counters of the cores on which models are timed.

Sources: proc_stat(5) and the kernel's cgroup-v1 and cgroup-v2 documents.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from job.benchmark.cpu_pinning import siblings
from job.benchmark.stability import Observation
from job.host import Throttling, throttling

# Positions of fields in a line of /proc/stat. The fields are in clock ticks.
_BUSY = (0, 1, 2, 5, 6)
_STEAL = 7


@dataclass(frozen=True)
class Counters:
    """One reading of all counters. Times are in seconds; only differences have a meaning.

    Attributes:
        at: monotonic time of the reading.
        own_seconds: processor time of this process.
        busy: processor time that all processes used on the cores.
        steal: time in which the hypervisor ran other machines on the cores.
        sibling_busy: processor time used on each other hyperthread of the cores.
        throttling: throttling of the container by its CPU limit.
    """

    at: float
    own_seconds: float
    busy: float
    steal: float
    sibling_busy: Sequence[float]
    throttling: Throttling


def read(cores: Sequence[int], root: Path = Path("/")) -> Counters:
    """Read all counters.

    Args:
        cores: the cores that models are timed on.
        root: the folder that contains ``proc`` and ``sys``.
    """
    others = {other for core in cores for other in siblings(core, root)} - set(cores)
    lines = _per_core((root / "proc/stat").read_text(encoding="ascii"))
    return Counters(
        at=time.monotonic(),
        own_seconds=time.process_time(),
        busy=sum(_sum(lines.get(core, ()), _BUSY) for core in cores),
        steal=sum(_sum(lines.get(core, ()), (_STEAL,)) for core in cores),
        sibling_busy=tuple(_sum(lines.get(core, ()), _BUSY) for core in sorted(others)),
        throttling=throttling(root),
    )


def between(
    before: Counters, after: Counters, *, cores: int, model_seconds: float, preemptions: int
) -> Observation:
    """Return the differences between two readings.

    Args:
        before: the first reading.
        after: the second reading, of the same cores.
        cores: number of cores.
        model_seconds: processor time that the timing processes used between the readings.
        preemptions: involuntary context switches of the timing processes between the readings.
    """
    return Observation(
        seconds=after.at - before.at,
        cores=cores,
        busy_seconds=after.busy - before.busy,
        own_seconds=after.own_seconds - before.own_seconds + model_seconds,
        sibling_seconds=max(
            (now - then for then, now in zip(before.sibling_busy, after.sibling_busy, strict=True)),
            default=0.0,
        ),
        steal_seconds=after.steal - before.steal,
        throttled_periods=after.throttling.periods - before.throttling.periods,
        throttled_seconds=after.throttling.seconds - before.throttling.seconds,
        preemptions=preemptions,
    )


def _per_core(stat: str) -> dict[int, tuple[int, ...]]:
    """Return the clock ticks of each core in ``/proc/stat``."""
    lines = (line.split() for line in stat.splitlines())
    return {
        int(name[3:]): tuple(map(int, ticks))
        for name, *ticks in filter(None, lines)
        if name.startswith("cpu") and name[3:].isdigit()
    }


def _sum(ticks: Sequence[int], fields: Sequence[int]) -> float:
    """Return the sum of fields in seconds; a field that this kernel lacks counts as 0."""
    total = sum(ticks[field] for field in fields if field < len(ticks))
    return total / os.sysconf("SC_CLK_TCK")
