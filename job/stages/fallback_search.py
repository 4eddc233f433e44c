"""The search for ops that must stay in FP32: the worst ones, one more at each try."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from job.errors import QuantizationError

# Drops are multiples of 100 / images: their rounding must not decide.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Score:
    """How good an INT8 model is.

    Attributes:
        top1_drop: points of top-1 that it loses against FP32.
        worst: the op that differs most of those that are still in INT8; None if none differs.
    """

    top1_drop: float
    worst: str | None


@dataclass(frozen=True)
class Try:
    """One INT8 model that was scored.

    Attributes:
        op: left in FP32 besides those of all tries before; None in the first one.
        top1_drop: its score's.
        worst: its score's.
        seconds: that it took.
    """

    op: str | None
    top1_drop: float
    worst: str | None
    seconds: float


@dataclass(frozen=True)
class FallbackResult:
    """What a search has found.

    Attributes:
        tries: in their order, at least one.
        stopped: why there was no further try.
    """

    tries: tuple[Try, ...]
    stopped: str

    @property
    def kept(self) -> int:
        """How many ops stay in FP32: of the tries with the smallest drop, those of the first."""
        drops = [one.top1_drop for one in self.tries]
        return drops.index(min(drops))

    @property
    def ops(self) -> tuple[str, ...]:
        """The ops that stay in FP32, the worst first."""
        return left_by(self.tries[: self.kept + 1])


def left_by(tries: Sequence[Try]) -> tuple[str, ...]:
    """The ops that a series of tries has left in FP32."""
    return tuple(one.op for one in tries if one.op is not None)


def search(
    score: Callable[[Sequence[str]], Score | None],
    *,
    max_top1_drop: float,
    max_seconds: float,
    earlier: Sequence[Try] = (),
    on_try: Callable[[Sequence[Try]], None],
    clock: Callable[[], float] = time.monotonic,
) -> FallbackResult | None:
    """Leave the worst op in FP32, score the model and go on with the next, until it is good enough.

    Args:
        score: builds and scores the model with these ops in FP32; None when it was interrupted.
        max_top1_drop: a drop of so many points is good enough.
        max_seconds: of all tries together; a try that would not end within them is not begun.
        earlier: the tries of an interrupted search, which this one goes on from.
        on_try: told of all tries so far after each one.
        clock: the time in seconds.

    Returns:
        What was found, or None when ``score`` was interrupted.

    Raises:
        QuantizationError: there is no INT8 model with all ops in INT8.
    """
    tries = list(earlier)
    while not (stopped := reason_to_stop(tries, max_top1_drop, max_seconds)):
        op = tries[-1].worst if tries else None
        ops = [*left_by(tries), op] if op is not None else []
        began = clock()
        try:
            found = score(ops)
        except QuantizationError as error:
            if not tries:
                raise
            stopped = f"with {op} in FP32 as well there is no INT8 model: {error.message}"
            break
        if found is None:
            return None
        tries.append(Try(op, found.top1_drop, found.worst, round(clock() - began, 3)))
        on_try(tries)
    return FallbackResult(tuple(tries), stopped)


def reason_to_stop(tries: Sequence[Try], max_top1_drop: float, max_seconds: float) -> str:
    """Why there is to be no further try; empty if there is."""
    if not tries:
        return ""
    last = tries[-1]
    if last.top1_drop <= max_top1_drop + TOLERANCE:
        return f"the drop is at most {max_top1_drop:g} points"
    if last.worst is None:
        return "no op that is left in INT8 differs"
    if sum(one.seconds for one in tries) + last.seconds > max_seconds:
        return f"another try would take longer than {max_seconds / 60:g} minutes in all"
    return ""
