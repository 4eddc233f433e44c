"""Searches for ops to keep in FP32. Each try adds the op with the largest error."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job.errors import QuantizationError

# What the search compares: the top-1 drop, or the signal-to-noise ratio against FP32.
TOP1, SIGNAL_TO_NOISE = "top1", "signal_to_noise"
# A choice: at about 25 dB, two mobile networks kept 98 to 99% of FP32's classes on 800 photographs.
ENOUGH_DECIBELS = 25.0
# Drops are multiples of 100 / images, so rounding errors must not decide the comparison.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Score:
    """Accuracy of an INT8 model.

    Attributes:
        top1_drop: top-1 of FP32 minus top-1 of the INT8 model, in percentage points; None without
            classes.
        signal_to_noise_db: signal-to-noise ratio of the outputs against FP32, in decibels.
        worst: the INT8 op with the largest error; None if no INT8 op has an error.
    """

    top1_drop: float | None
    signal_to_noise_db: float
    worst: str | None


@dataclass(frozen=True)
class Try:
    """One scored INT8 model.

    Attributes:
        op: op in FP32 in addition to the ops of all earlier tries; None in the first try.
        top1_drop: see :class:`Score`.
        signal_to_noise_db: see :class:`Score`.
        worst: see :class:`Score`.
        seconds: duration of building and scoring.
    """

    op: str | None
    top1_drop: float | None
    signal_to_noise_db: float
    worst: str | None
    seconds: float


@dataclass(frozen=True)
class FallbackResult:
    """Result of a search.

    Attributes:
        tries: the tries in order, at least one.
        stopped: why the search stopped, as a clause for the report.
        measure: ``TOP1`` or ``SIGNAL_TO_NOISE``: what the search compared.
    """

    tries: tuple[Try, ...]
    stopped: str
    measure: str = TOP1

    @property
    def kept(self) -> int:
        """Number of ops that the first try with the best value of the measure keeps in FP32."""
        if self.measure == SIGNAL_TO_NOISE:
            ratios = [each.signal_to_noise_db for each in self.tries]
            return ratios.index(max(ratios))
        drops = [each.top1_drop for each in self.tries if each.top1_drop is not None]
        return drops.index(min(drops))

    @property
    def ops(self) -> tuple[str, ...]:
        """The ops to keep in FP32, in order of the tries."""
        return fp32_ops(self.tries[: self.kept + 1])


def fp32_ops(tries: Sequence[Try]) -> tuple[str, ...]:
    """Return the ops that the last of some tries keeps in FP32."""
    return tuple(each.op for each in tries if each.op is not None)


def search(
    score: Callable[[Sequence[str]], Score | None],
    *,
    max_top1_drop: float,
    max_seconds: float,
    measure: str = TOP1,
    earlier: Sequence[Try] = (),
    on_try: Callable[[Sequence[Try]], None],
    clock: Callable[[], float] = time.monotonic,
) -> FallbackResult | None:
    """Keep one more op in FP32 per try and score the model, until it is accurate enough.

    Args:
        score: builds and scores the model with the given ops in FP32; returns None if interrupted.
        max_top1_drop: largest acceptable top-1 drop, in percentage points.
        measure: ``TOP1``, or ``SIGNAL_TO_NOISE`` to reach ``ENOUGH_DECIBELS`` instead.
        max_seconds: time limit of all tries; a try that would probably exceed it is not started.
        earlier: the tries of an interrupted search, to resume it.
        on_try: called with all tries so far after each try.
        clock: returns the time in seconds.

    Returns:
        The result, or None if ``score`` was interrupted.

    Raises:
        QuantizationError: the model with all ops in INT8 cannot be built.
    """
    tries = list(earlier)
    while not (stopped := reason_to_stop(tries, measure, max_top1_drop, max_seconds)):
        op = tries[-1].worst if tries else None
        ops = [*fp32_ops(tries), op] if op is not None else []
        started = clock()
        try:
            scored = score(ops)
        except QuantizationError as error:
            if not tries:
                raise
            stopped = f"the model with {op} in FP32, too, could not be built: {error.message}"
            break
        if scored is None:
            return None
        seconds = round(clock() - started, 3)
        ratio = scored.signal_to_noise_db
        tries.append(Try(op, scored.top1_drop, ratio, scored.worst, seconds))
        on_try(tries)
    return FallbackResult(tuple(tries), stopped, measure)


def reason_to_stop(
    tries: Sequence[Try], measure: str, max_top1_drop: float, max_seconds: float
) -> str:
    """Return why the search must stop, as a clause; empty if it must continue."""
    if not tries:
        return ""
    last = tries[-1]
    if measure == SIGNAL_TO_NOISE and last.signal_to_noise_db >= ENOUGH_DECIBELS:
        return f"the signal-to-noise ratio is at least {ENOUGH_DECIBELS:g} dB"
    drop = last.top1_drop
    if measure == TOP1 and drop is not None and drop <= max_top1_drop + TOLERANCE:
        return f"the top-1 drop is at most {max_top1_drop:g} percentage points"
    if last.worst is None:
        return "no remaining INT8 op has an error"
    if sum(each.seconds for each in tries) + last.seconds > max_seconds:
        return f"another try would exceed the time limit of {max_seconds / 60:g} minutes"
    return ""
