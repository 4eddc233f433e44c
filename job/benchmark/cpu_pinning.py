"""Chooses the cores that models are timed on."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from job.benchmark.samples import BenchmarkSetting
from job.errors import MachineError
from job.host import usable_cores
from job.text_format import plural

_SIBLINGS = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def check(settings: Sequence[BenchmarkSetting]) -> None:
    """Check that this process may use as many cores as every setting needs.

    Raises:
        MachineError: a setting needs more cores; the message names its manifest key.
    """
    usable = usable_cores()
    for setting in settings:
        if setting.cores > usable:
            key = "threads" if setting.scenario == "latency" else "instances"
            raise MachineError(
                f"/benchmark/{key}: found {setting.cores} {key}, but only "
                f"{plural(usable, 'core')} can be used",
                f"Lower benchmark.{key}, or give the container more cores.",
            )


def pinned(setting: BenchmarkSetting) -> list[int]:
    """Return the cores that a setting is timed on: physical cores first, then hyperthreads."""
    cores = sorted(os.sched_getaffinity(0))
    return spread(cores, {core: siblings(core) for core in cores})[: setting.cores]


def spread(cores: Sequence[int], sharing: Mapping[int, frozenset[int]]) -> list[int]:
    """Order cores: first one logical core of each physical core, then the others.

    Args:
        cores: logical cores in the preferred order.
        sharing: for each logical core, all logical cores of its physical core.
    """
    order: list[int] = []
    taken: list[int] = []
    for core in cores:
        (taken if sharing[core] & set(order) else order).append(core)
    return order + (spread(taken, sharing) if taken else [])


def siblings(core: int, root: Path = Path("/")) -> frozenset[int]:
    """Return all logical cores of a core's physical core, including the core."""
    try:
        text = (root / _SIBLINGS.format(core)).read_text(encoding="ascii")
    except OSError:
        return frozenset({core})
    return frozenset(_numbers(text)) | {core}


def _numbers(text: str) -> list[int]:
    """Parse a list of cores in the kernel's format, such as ``0-1,8``."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        numbers += range(int(low), int(high or low) + 1)
    return numbers
