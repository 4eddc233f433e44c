"""Decides whether a measurement is stable. If it is not, gives the reasons and what to do.

Each threshold is far above the values on an idle machine, and close to the lowest value at which a
disturbance changes the results.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from job.text_format import plural

# Shares of the cores' time used by other processes, sibling hyperthreads and other machines.
MAX_OTHERS = 0.05
MAX_SIBLINGS = 0.10
MAX_STEAL = 0.02
# On an idle machine, the kernel's own threads preempt a process a few times a second.
MAX_PREEMPTIONS_PER_SECOND = 40.0
# Relative change of throughput from the first third of the rounds to the last third.
MAX_DRIFT = 0.10
# Width of the ratio's 95% interval, relative to the ratio; 0.12 occurs with five rounds on an idle
# machine.
MAX_WIDTH = 0.15
# In shorter measurements, shares of processor time are inexact: the kernel counts steps of 10 ms.
LEAST_SECONDS = 1.0
_FREE_CORES = (
    "Stop other processes, or reserve cores for the job (cpusets, taskset). Then run again with "
    "--from benchmark."
)


@dataclass(frozen=True)
class Reason:
    """A reason why a measurement is unstable, and what to do."""

    what: str
    advice: str


@dataclass(frozen=True)
class Observation:
    """The use of the cores while models were timed.

    Attributes:
        seconds: duration.
        cores: number of cores that models were timed on.
        busy_seconds: processor time that all processes used on these cores.
        own_seconds: processor time that the timing processes and the benchmark used.
        sibling_seconds: processor time used on the busiest other hyperthread of these cores. One
            busy hyperthread slows its core, and all threads wait for the slowest.
        steal_seconds: time in which the hypervisor ran other machines on these cores.
        throttled_periods: number of periods in which the container hit its CPU limit.
        throttled_seconds: time for which the container was throttled.
        preemptions: involuntary context switches of the timing processes.
    """

    seconds: float
    cores: int
    busy_seconds: float = 0.0
    own_seconds: float = 0.0
    sibling_seconds: float = 0.0
    steal_seconds: float = 0.0
    throttled_periods: int = 0
    throttled_seconds: float = 0.0
    preemptions: int = 0


def together(observations: Sequence[Observation]) -> Observation:
    """Add observations of the same cores."""
    sums = {
        field.name: sum(getattr(one, field.name) for one in observations)
        for field in fields(Observation)
    }
    return replace(Observation(**sums), cores=observations[0].cores)


def reasons(
    observed: Observation,
    rates: Mapping[str, Sequence[float]],
    ratio: float,
    interval: Sequence[float] | None,
) -> tuple[Reason, ...]:
    """Return all reasons why one row of table II is unstable; empty if it is stable.

    Args:
        observed: the use of the cores during the measurement.
        rates: images/s of each round, by model.
        ratio: INT8 throughput divided by FP32 throughput.
        interval: 95% interval of the ratio; None for a single round.
    """
    return (*_machine(observed), *_figures(rates, ratio, interval))


def is_wide(ratio: float, interval: Sequence[float]) -> bool:
    """Return whether a ratio's 95% interval is too wide for a useful comparison."""
    return interval[1] - interval[0] > MAX_WIDTH * ratio


def drift(rates: Mapping[str, Sequence[float]]) -> float:
    """Return the relative change of throughput that all models share, such as -0.12.

    The change of one model is the geometric mean of the last third of its rounds divided by the
    geometric mean of the first third. The result is the smallest change of all models. It is 0 if
    some models became faster and others slower, or for a single round.
    """
    changes = [_change(one) for one in rates.values() if len(one) > 1]
    if not changes or min(changes) * max(changes) <= 0:
        return 0.0
    return math.expm1(min(changes, key=abs))


def _change(rates: Sequence[float]) -> float:
    third = max(1, len(rates) // 3)
    logs = [math.log(rate) for rate in rates]
    return (sum(logs[-third:]) - sum(logs[:third])) / third


def _machine(observed: Observation) -> Iterator[Reason]:
    time = observed.seconds * observed.cores
    if observed.throttled_periods:
        yield Reason(
            f"the container hit its CPU limit {plural(observed.throttled_periods, 'time')} "
            f"(throttled for {observed.throttled_seconds:.2g} s)",
            "Raise the container's CPU limit, or lower benchmark.threads or benchmark.instances.",
        )
    if observed.seconds < LEAST_SECONDS:
        return
    if observed.steal_seconds > MAX_STEAL * time:
        yield Reason(
            f"the hypervisor used {_percent(observed.steal_seconds / time)} of the cores' time "
            "for other machines",
            "Use a machine with dedicated cores, or measure again when the host is less busy.",
        )
    others = max(0.0, observed.busy_seconds - observed.own_seconds)
    preemptions = observed.preemptions / time
    if others > MAX_OTHERS * time:
        yield Reason(
            f"other processes used {_percent(others / time)} of the cores' time",
            _FREE_CORES,
        )
    elif preemptions > MAX_PREEMPTIONS_PER_SECOND:
        yield Reason(
            f"other processes interrupted the models {preemptions:.0f} times a second on each core",
            _FREE_CORES,
        )
    if observed.sibling_seconds > MAX_SIBLINGS * observed.seconds:
        share = observed.sibling_seconds / observed.seconds
        yield Reason(
            f"another hyperthread of a core was busy for {_percent(share)} of the time",
            "Reserve whole physical cores for the job, or disable hyperthreading.",
        )


def _figures(
    rates: Mapping[str, Sequence[float]], ratio: float, interval: Sequence[float] | None
) -> Iterator[Reason]:
    change = drift(rates)
    if abs(change) > MAX_DRIFT:
        yield Reason(
            f"all models became {_percent(abs(change))} {'faster' if change > 0 else 'slower'} "
            "from the first rounds to the last",
            "The clock frequency probably changed: let the machine warm up or cool down, fix the "
            "frequency (governor performance, turbo off), or raise benchmark.rounds.",
        )
    if interval is None:
        yield Reason(
            "one round gives no confidence interval of the speedup", "Raise benchmark.rounds."
        )
    elif is_wide(ratio, interval):
        width = (interval[1] - interval[0]) / ratio
        yield Reason(
            f"the 95% interval of the speedup has a width of {_percent(width)} of the speedup",
            "Raise benchmark.rounds.",
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
