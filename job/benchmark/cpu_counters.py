"""What the kernel counts of the cores that models are timed on.

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

# Fields of a line of /proc/stat, in clock ticks.
_BUSY = (0, 1, 2, 5, 6)
_STEAL = 7


@dataclass(frozen=True)
class Counters:
    """Seconds and events since the machine started.

    Attributes:
        at: monotonic time.
        own_seconds: processor time of this process.
        busy: processor time used on the cores by anyone.
        steal: time that the hypervisor took from the cores.
        sibling_busy: processor time used on each of the cores' other hyperthreads.
        throttling: of the control group.
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
        root: folder that holds ``proc`` and ``sys``.
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
    """What happened from one reading to the next.

    Args:
        before: the first reading.
        after: the second, of the same cores.
        cores: how many cores.
        model_seconds: processor time that the models' processes used meanwhile.
        preemptions: how often they lost their core to another process.
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
    """The clock ticks of each core in ``/proc/stat``."""
    lines = (line.split() for line in stat.splitlines())
    return {
        int(name[3:]): tuple(map(int, ticks))
        for name, *ticks in filter(None, lines)
        if name.startswith("cpu") and name[3:].isdigit()
    }


def _sum(ticks: Sequence[int], fields: Sequence[int]) -> float:
    """Seconds in some fields; 0 where this kernel does not count them."""
    found = sum(ticks[field] for field in fields if field < len(ticks))
    return found / os.sysconf("SC_CLK_TCK")
