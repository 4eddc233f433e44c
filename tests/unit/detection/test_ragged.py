from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from job.detection.annotations import Annotations, Detections
from job.detection.ragged import (
    arrays_of_detections,
    arrays_of_objects,
    detections_of,
    objects_of,
)

OBJECTS = [
    Annotations.of([[0, 0, 8, 8], [1, 2, 3, 4]], [1, 2], difficult=[True, False]),
    Annotations.none(),
    Annotations.of([[5, 5, 6, 7]], [0], crowd=[True], area=[1.5]),
]
DETECTIONS = [
    Detections.of([], [], []),
    Detections.of([[0, 0, 8, 8], [1, 2, 3, 4]], [0.5, 0.25], [1, 2]),
]


def assert_same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for field in fields(one):
            values = getattr(one, field.name), getattr(other, field.name)
            assert values[0].dtype == values[1].dtype
            np.testing.assert_array_equal(*values)


def test_objects_and_detections_are_restored() -> None:
    assert_same(objects_of(arrays_of_objects(OBJECTS)), OBJECTS)
    assert_same(detections_of(arrays_of_detections(DETECTIONS)), DETECTIONS)


def test_arrays_of_batches_can_be_concatenated() -> None:
    first, second = arrays_of_objects(OBJECTS[:2]), arrays_of_objects(OBJECTS[2:])
    whole = {name: np.concatenate([first[name], second[name]]) for name in first}
    assert_same(objects_of(whole), OBJECTS)


@pytest.mark.parametrize("images", [[], [Annotations.none()]])
def test_nothing_is_restored(images: list[Annotations]) -> None:
    arrays = arrays_of_objects(images)
    assert arrays["boxes"].shape == (0, 4)
    assert_same(objects_of(arrays), images)


@pytest.mark.parametrize("name", ["counts", "boxes", "difficult"])
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    arrays = dict(arrays_of_objects(OBJECTS))
    with pytest.raises(ValueError, match=name):
        objects_of(
            {**arrays, name: arrays[name][1:]}
            if name != "counts"
            else {key: value for key, value in arrays.items() if key != name}
        )
