"""Which of two candidates training keeps."""

import pytest

from job.engine.training.checkpoints import Evaluation
from job.engine.training.evaluation import is_better

pytestmark = pytest.mark.engine


def candidate(criterion, value, decibels):
    return Evaluation(1, {criterion: value, "signal_to_noise_db": decibels})


@pytest.mark.parametrize(
    ("criterion", "found", "best", "better"),
    [
        ("map", (50.0, 10.0), (40.0, 30.0), True),
        ("map", (0.0, -161.2), (0.0, 6.5), False),
        ("map", (0.0, 6.5), (0.0, -161.2), True),
        ("divergence", (0.1, 10.0), (0.2, 30.0), True),
        ("divergence", (0.2, 30.0), (0.1, 10.0), False),
        # Without FP32 outputs to compare with, the later one is better.
        ("top1", (90.0, None), (90.0, None), True),
    ],
)
def test_ties_are_decided_by_the_signal_to_noise_ratio(criterion, found, best, better):
    found, best = (candidate(criterion, *values) for values in (found, best))
    assert is_better(found, best, criterion) is better
