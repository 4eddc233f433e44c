import numpy as np
import pytest

from job.detection.curves import MAX_POINTS, curves
from job.detection.precision_recall import Ranking


def ranking(right: list[bool], positives: int) -> Ranking:
    count = len(right)
    return Ranking(
        images=np.zeros(count, np.int64),
        scores=np.linspace(1, 0, count),
        right=np.array(right, np.bool_),
        positives=np.array([positives]),
    )


def test_a_curve_has_the_best_precision_at_each_recall() -> None:
    (found,) = curves([ranking([True, False, True, True], 4)])
    assert found["label"] == 0
    assert found["recall"] == [0.25, 0.5, 0.75]
    assert found["precision"] == [1.0, 0.75, 0.75]


def test_classes_without_objects_have_no_curve() -> None:
    found = curves([ranking([False], 0), ranking([], 3)])
    assert found == [{"label": 1, "recall": [], "precision": []}]


def test_a_long_curve_keeps_its_ends() -> None:
    (found,) = curves([ranking([True, False] * 1000, 1000)])
    assert len(found["recall"]) == MAX_POINTS
    assert found["recall"][-1] == 1.0
    assert found["precision"][0] == pytest.approx(1.0)
    assert found["recall"] == sorted(found["recall"])
