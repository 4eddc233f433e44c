"""The search for ops to keep in FP32, with invented scores."""

import itertools
from collections.abc import Callable, Sequence

import pytest

from job.errors import QuantizationError
from job.stages.fallback_search import (
    SIGNAL_TO_NOISE,
    TOP1,
    FallbackResult,
    Score,
    Try,
    search,
)

# Op -> top-1 drop in points if the op runs in INT8; the op with the largest error first.
COSTS = {"first": 0.0, "second": 3.0, "third": 1.0, "fourth": 0.5}
# Decibels by the number of ops in FP32.
RATIOS = [20.0, 24.0, 25.5, 25.0, 26.0]


def score(ops: Sequence[str]) -> Score:
    """Return the sum of the drops of the ops in INT8."""
    int8 = [op for op in COSTS if op not in ops]
    return Score(sum(COSTS[op] for op in int8), RATIOS[len(ops)], int8[0] if int8 else None)


def find(
    scorer: Callable[[Sequence[str]], Score | None] = score,
    *,
    limit: float = 0.0,
    seconds: float = 1000,
    measure: str = TOP1,
    earlier: Sequence[Try] = (),
    counts: list[int] | None = None,
) -> FallbackResult | None:
    ticks = itertools.count()
    return search(
        scorer,
        max_top1_drop=limit,
        max_seconds=seconds,
        measure=measure,
        earlier=earlier,
        on_try=lambda tries: counts.append(len(tries)) if counts is not None else None,
        # Each try takes one second.
        clock=lambda: float(next(ticks)),
    )


def outcome(found: FallbackResult | None) -> FallbackResult:
    assert found is not None
    return found


def test_nothing_is_left_when_int8_is_good_enough() -> None:
    found = outcome(find(limit=4.5))
    assert (found.kept, found.ops, len(found.tries)) == (0, (), 1)
    assert "4.5 percentage points" in found.stopped


def test_the_worst_go_one_at_a_time_until_the_limit_is_reached() -> None:
    counts: list[int] = []
    found = outcome(find(limit=1.5, counts=counts))
    assert [(one.op, one.top1_drop) for one in found.tries] == [
        (None, 4.5),
        ("first", 4.5),
        ("second", 1.5),
    ]
    assert found.ops == ("first", "second")
    assert counts == [1, 2, 3]


def test_a_drop_is_compared_without_its_rounding() -> None:
    assert outcome(find(lambda _: Score(0.3 + 1e-12, 20.0, "a"), limit=0.3)).kept == 0


def test_of_equal_drops_the_one_with_fewer_ops_in_fp32_is_kept() -> None:
    found = outcome(find(lambda ops: Score(2.0, 20.0, "abc"[len(ops)] if len(ops) < 3 else None)))
    assert (len(found.tries), found.kept, found.ops) == (4, 0, ())
    assert "no remaining INT8 op" in found.stopped


def test_the_best_is_kept_when_later_tries_are_worse() -> None:
    drops = [5.0, 2.0, 3.0, 4.0]
    names = ["a", "b", "c", None]
    found = outcome(find(lambda ops: Score(drops[len(ops)], 20.0, names[len(ops)])))
    assert (found.kept, found.ops) == (1, ("a",))
    assert len(found.tries) == 4


def test_with_too_few_images_the_ratio_decides() -> None:
    # The drop of the first try is below the limit, and its ratio is not large enough.
    found = outcome(find(limit=4.5, measure=SIGNAL_TO_NOISE))
    assert (len(found.tries), found.ops) == (3, ("first", "second"))
    assert "25 dB" in found.stopped


def test_the_largest_ratio_is_kept() -> None:
    ratios, names = [20.0, 24.0, 22.0], ["a", "b", None]
    drops = [0.0, 1.0, 2.0]

    def scored(ops: Sequence[str]) -> Score:
        return Score(drops[len(ops)], ratios[len(ops)], names[len(ops)])

    assert outcome(find(scored, limit=-1, measure=SIGNAL_TO_NOISE)).ops == ("a",)
    assert outcome(find(scored, limit=-1)).ops == ()


@pytest.mark.parametrize(("seconds", "tries"), [(0.5, 1), (1, 1), (2, 2), (3.5, 3)])
def test_no_try_is_begun_that_would_not_end_in_time(seconds: float, tries: int) -> None:
    found = outcome(find(seconds=seconds))
    assert len(found.tries) == tries
    assert f"{seconds / 60:g} minutes" in found.stopped


def test_an_interrupted_search_goes_on_where_it_was() -> None:
    kept: list[Try] = []
    whole = outcome(find())

    def interrupted(ops: Sequence[str]) -> Score | None:
        return score(ops) if len(ops) < 2 else None

    ticks = itertools.count()
    stopped = search(
        interrupted,
        max_top1_drop=0,
        max_seconds=1000,
        on_try=lambda tries: kept.__setitem__(slice(None), tries),
        clock=lambda: float(next(ticks)),
    )
    assert stopped is None
    assert len(kept) == 2
    scored: list[tuple[str, ...]] = []

    def rest(ops: Sequence[str]) -> Score | None:
        scored.append(tuple(ops))
        return score(ops)

    assert find(rest, earlier=kept) == whole
    assert scored[0] == ("first", "second")


def test_time_before_an_interruption_counts() -> None:
    earlier = [Try(None, 4.5, 20.0, "first", 7.0)]
    found = outcome(find(seconds=10, earlier=earlier))
    assert found.tries == tuple(earlier)


def test_a_model_that_cannot_be_made_ends_the_search() -> None:
    def fails(ops: Sequence[str]) -> Score:
        if len(ops) > 1:
            raise QuantizationError("nothing was quantized")
        return score(ops)

    found = outcome(find(fails))
    assert len(found.tries) == 2
    assert "second" in found.stopped
    assert found.stopped.endswith("nothing was quantized")


def test_without_any_int8_model_there_is_nothing_to_keep() -> None:
    def fails(ops: Sequence[str]) -> Score:
        raise QuantizationError("nothing was quantized")

    with pytest.raises(QuantizationError, match="nothing was quantized"):
        find(fails)
