"""The INT8 model computes the same after it was saved."""

import numpy as np
import pytest

from job.errors import QuantizationError
from job.stages.int8 import check_saved
from job.tasks.task import Outputs

SCORES = (np.random.default_rng(0).normal(0, 1, (4, 100)).astype("float32"),)


def noisy(share: float, seed: int) -> Outputs:
    """The scores with a relative error of ``share``."""
    noise = np.random.default_rng(seed).normal(0, 1, SCORES[0].shape).astype("float32")
    noise *= share * np.linalg.norm(SCORES[0]) / np.linalg.norm(noise)
    return (SCORES[0] + noise,)


def unused() -> Outputs:
    raise AssertionError("the fake-quantized model is not needed")


def test_bits_are_equal_with_vnni() -> None:
    check_saved(SCORES, SCORES, exact=True, trained=unused)
    with pytest.raises(QuantizationError, match="at most 0"):
        check_saved(noisy(0.001, 1), SCORES, exact=True, trained=unused)


def test_rounded_weights_differ_a_little_without_vnni() -> None:
    check_saved(noisy(0.09, 1), SCORES, exact=False, trained=unused)


def test_a_network_that_multiplies_the_rounding_differs_more() -> None:
    before, after = noisy(0.15, 1), noisy(0.15, 2)
    check_saved(after, before, exact=False, trained=lambda: SCORES)
    with pytest.raises(QuantizationError, match=r"0\.2"):
        check_saved(noisy(0.2, 2), SCORES, exact=False, trained=lambda: noisy(0.05, 1))


def test_a_value_that_is_not_finite_is_refused() -> None:
    broken = (np.full_like(SCORES[0], np.nan),)
    with pytest.raises(QuantizationError):
        check_saved(broken, SCORES, exact=False, trained=unused)
