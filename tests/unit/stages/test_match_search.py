"""The search for ops at fault: which ops it finds, and how many models it builds."""

import math

import pytest

from job.stages.match_search import MAX_FOUND, search

OPS = [f"op{number}" for number in range(72)]


class Model:
    """A model whose agreement is the sum of the errors of its INT8 ops."""

    def __init__(self, errors: dict[str, float], stop_after: int = 1000) -> None:
        self.errors = errors
        self.stop_after = stop_after
        self.tries = 0

    def agree(self, fp32: object) -> float | None:
        assert isinstance(fp32, list)
        if self.tries == self.stop_after:
            return None
        self.tries += 1
        noise = sum(error for op, error in self.errors.items() if op not in fp32)
        return -10 * math.log10(noise) if noise else math.inf


def test_ops_at_fault_are_found_among_small_errors() -> None:
    small = dict.fromkeys(OPS, 1e-5)
    for wrong in ({"op40": 1.0}, {"op3": 1.0, "op71": 0.5}, {"op5": 0.1, "op6": 3.0, "op20": 1.0}):
        assert sorted(search(OPS, Model(small | wrong).agree, 20) or ()) == sorted(wrong)


def test_spread_errors_end_the_search_after_one_bisection() -> None:
    for error in (0.01, 0.001, 0.0003):
        model = Model(dict.fromkeys(OPS, error))
        assert search(OPS, model.agree, 20) == []
        assert model.tries <= 8


def test_op_that_adds_to_small_errors_is_found() -> None:
    # 18.3 dB with this op in INT8, 21.9 dB without.
    model = Model(dict.fromkeys(OPS, 9e-5) | {"op40": 0.0083})
    assert search(OPS, model.agree, 20) == ["op40"]


def test_few_ops_that_reach_the_bound_together_are_found() -> None:
    model = Model(dict.fromkeys(OPS, 0.00015))
    found = search(OPS, model.agree, 20) or []
    assert 0 < len(found) <= MAX_FOUND
    assert model.agree(found) == pytest.approx(20, abs=0.3)


def test_op_without_which_no_model_can_be_built_is_found() -> None:
    def agree(fp32: object) -> float:
        assert isinstance(fp32, list)
        return 30.0 if "op9" in fp32 else -math.inf

    assert search(OPS, agree, 20) == ["op9"]


def test_stop_request_ends_the_search() -> None:
    assert search(OPS, Model({"op40": 1.0}, stop_after=3).agree, 20) is None
