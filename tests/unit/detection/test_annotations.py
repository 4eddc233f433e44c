"""The records of objects and detections."""

import numpy as np
import pytest

from job.detection.annotations import Annotations, Detections, class_ranks


def test_defaults():
    found = Annotations.of([[0, 0, 4, 5]], [2])
    assert (found.difficult.tolist(), found.crowd.tolist()) == ([False], [False])
    assert found.area.tolist() == [20]
    assert len(Annotations.none()) == 0


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"\[1, 4\], \[2\]"):
        Annotations.of([[0, 0, 4, 5]], [2, 3])
    with pytest.raises(ValueError, match="1, 2 and 1"):
        Detections.of([[0, 0, 4, 5]], [0.5, 0.5], [1])


def test_take_keeps_all_columns_together():
    found = Annotations.of(
        [[0, 0, 1, 1], [0, 0, 2, 2]], [3, 4], difficult=[0, 1], crowd=[0, 1], area=[1, 3]
    ).take(np.array([False, True]))
    assert found.boxes.tolist() == [[0, 0, 2, 2]]
    columns = (found.classes, found.difficult, found.crowd, found.area)
    assert [each.tolist() for each in columns] == [[4], [True], [True], [3]]


def test_areas_change_with_their_boxes():
    found = Annotations.of([[0, 0, 10, 10]], [0], area=[60])
    assert found.moved(np.array([[0, 0, 20, 10]])).area.tolist() == [120]


def test_clipped_removes_objects_outside():
    found = Annotations.of([[-5, 0, 5, 10], [20, 0, 30, 10]], [0, 1]).clipped((10, 20))
    assert found.boxes.tolist() == [[0, 0, 5, 10]]
    assert (found.classes.tolist(), found.area.tolist()) == ([0], [50])


def test_detections_of_a_broken_model():
    """A NaN score removes a detection; a NaN coordinate makes it false."""
    nan, inf = np.nan, np.inf
    found = Detections.of(
        [[9, 9, 1, 2], [nan, 0, 5, 5], [-inf, 3, inf, 4], [0, 0, 1, 1]],
        [0.9, 0.8, 0.7, nan],
        [0, 1, 2, 3],
        (10, 20),
    )
    assert found.boxes.tolist() == [[1, 2, 9, 9], [0, 0, 0, 0], [0, 3, 20, 4]]
    assert found.classes.tolist() == [0, 1, 2]


def test_detections_refuse_swapped_corners_and_nan():
    one = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="x0 <= x1"):
        Detections(np.array([[9.0, 0, 1, 1]]), np.ones(1), one)
    with pytest.raises(ValueError, match="NaN"):
        Detections(np.array([[0.0, 0, 1, 1]]), np.array([np.nan]), one)


def test_class_ranks():
    assert class_ranks(np.array([5, 2, 5, 5, 2])).tolist() == [0, 0, 1, 2, 1]
    assert class_ranks(np.zeros(0, np.int64)).tolist() == []
