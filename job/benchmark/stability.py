"""Pure judgements on whether a measurement can be trusted, and what to do when it cannot.

Every threshold is far from what a machine with nothing else to do shows, and close to where the
figures start to move.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

# Shares of the cores' time.
MAX_OTHERS = 0.05
MAX_SIBLINGS = 0.10
MAX_STEAL = 0.02
# A core that nobody else wants is taken away a few times a second, by the kernel's own threads.
MAX_PREEMPTIONS_PER_SECOND = 40.0
# Relative change of speed from the first third of the rounds to the last.
MAX_DRIFT = 0.10
# Width of the ratio's 95% interval, of the ratio; five rounds on a quiet machine leave up to 0.12.
MAX_WIDTH = 0.15
# Below this, a share of processor time says nothing: the kernel counts in steps of 10 ms.
LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class Reason:
    """Why a measurement is unstable, and what a person can do about it."""

    what: str
    advice: str


@dataclass(frozen=True)
class Observation:
    """What happened on the cores while models were timed.

    Attributes:
        seconds: how long it took.
        cores: how many cores models were timed on.
        busy_seconds: processor time used on these cores, by whomever.
        own_seconds: processor time used by the models' processes and by the benchmark itself.
        sibling_seconds: processor time used on the busiest of the cores' other hyperthreads. One
            alone slows its core, and threads wait for the slowest.
        steal_seconds: time in which the hypervisor ran something else on these cores.
        throttled_periods: how often the control group had used up its quota.
        throttled_seconds: how long it had to wait then.
        preemptions: how often a model's process lost its core to another.
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
    """What happened over several stretches of time on the same cores."""
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
    """All that makes one row of table II unstable; empty when it is stable.

    Args:
        observed: what happened meanwhile.
        rates: images/s of each round, by model.
        ratio: INT8 over FP32.
        interval: of the ratio, 95%; None for a single round.
    """
    return (*_machine(observed), *_figures(rates, ratio, interval))


def is_wide(ratio: float, interval: Sequence[float]) -> bool:
    """Whether a ratio's 95% interval is too wide to tell much."""
    return interval[1] - interval[0] > MAX_WIDTH * ratio


def drift(rates: Mapping[str, Sequence[float]]) -> float:
    """By how much all models became faster or slower alike, such as -0.12.

    The mean of the last third of the rounds over that of the first, in logarithms, of the model
    that changed least; 0 when some became faster and others slower, or for a single round.
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
            f"the control group had used up its CPU quota {observed.throttled_periods} times and "
            f"waited {observed.throttled_seconds:.2g} s",
            "Raise the container's CPU limit, or lower benchmark.threads or benchmark.instances.",
        )
    if observed.seconds < LEAST_SECONDS:
        return
    if observed.steal_seconds > MAX_STEAL * time:
        yield Reason(
            f"the hypervisor gave {_percent(observed.steal_seconds / time)} of the cores' time "
            "to other machines",
            "Use a machine with dedicated cores, or measure again at a quieter hour.",
        )
    others = max(0.0, observed.busy_seconds - observed.own_seconds)
    preemptions = observed.preemptions / time
    if others > MAX_OTHERS * time:
        yield Reason(
            f"other processes used {_percent(others / time)} of the cores' time",
            "Stop them, or keep cores free for the job (cpusets, taskset), then run again with "
            "--from benchmark.",
        )
    elif preemptions > MAX_PREEMPTIONS_PER_SECOND:
        yield Reason(
            f"other processes took a model's core {preemptions:.0f} times a second",
            "Stop them, or keep cores free for the job (cpusets, taskset), then run again with "
            "--from benchmark.",
        )
    if observed.sibling_seconds > MAX_SIBLINGS * observed.seconds:
        share = observed.sibling_seconds / observed.seconds
        yield Reason(
            f"another hyperthread of the cores was busy for {_percent(share)} of the time",
            "Keep whole physical cores free for the job, or switch hyperthreading off.",
        )


def _figures(
    rates: Mapping[str, Sequence[float]], ratio: float, interval: Sequence[float] | None
) -> Iterator[Reason]:
    change = drift(rates)
    if abs(change) > MAX_DRIFT:
        yield Reason(
            f"from the first rounds to the last all models became {_percent(abs(change))} "
            f"{'faster' if change > 0 else 'slower'}",
            "The clock frequency moves: let the machine cool or warm up, fix the frequency "
            "(governor performance, turbo off), or raise benchmark.rounds.",
        )
    if interval is None:
        yield Reason(
            "one round tells nothing of how far the ratio can be trusted", "Raise benchmark.rounds."
        )
    elif is_wide(ratio, interval):
        width = (interval[1] - interval[0]) / ratio
        yield Reason(
            f"the ratio's 95% interval is {_percent(width)} of it wide",
            "Raise benchmark.rounds.",
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
