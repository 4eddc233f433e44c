"""Which cores models are timed on."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from job.benchmark.samples import BenchmarkSetting
from job.errors import MachineError
from job.host import usable_cores

_SIBLINGS = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def check(settings: Sequence[BenchmarkSetting]) -> None:
    """Make sure that every setting has as many cores as it keeps busy.

    Raises:
        MachineError: naming the manifest's key.
    """
    usable = usable_cores()
    for setting in settings:
        if setting.cores > usable:
            key = "threads" if setting.scenario == "latency" else "instances"
            raise MachineError(
                f"/benchmark/{key}: {setting.cores} {key} asked for, "
                f"{usable} core{'' if usable == 1 else 's'} usable",
                "Lower it, or give the container more cores.",
            )


def pinned(setting: BenchmarkSetting) -> list[int]:
    """The cores that a setting is timed on: physical cores first, then their hyperthreads."""
    cores = sorted(os.sched_getaffinity(0))
    return spread(cores, {core: siblings(core) for core in cores})[: setting.cores]


def spread(cores: Sequence[int], sharing: Mapping[int, frozenset[int]]) -> list[int]:
    """Order cores so that those that share a physical core come as late as they can.

    Args:
        cores: in the order wanted otherwise.
        sharing: of each core, the logical cores of its physical core.
    """
    order: list[int] = []
    taken: list[int] = []
    for core in cores:
        (taken if sharing[core] & set(order) else order).append(core)
    return order + (spread(taken, sharing) if taken else [])


def siblings(core: int, root: Path = Path("/")) -> frozenset[int]:
    """The logical cores of a core's physical core, itself among them."""
    try:
        text = (root / _SIBLINGS.format(core)).read_text(encoding="ascii")
    except OSError:
        return frozenset({core})
    return frozenset(_numbers(text)) | {core}


def _numbers(text: str) -> list[int]:
    """Read a list of the kernel's, such as ``0-1,8``."""
    found: list[int] = []
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found
