"""Boxes after each change, computed by hand, and boxes of painted objects."""

import numpy as np
import pytest

from job.data.transforms import resize
from job.detection import geometry
from job.detection.annotations import Annotations


def picture(height: int = 20, width: int = 40, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def objects(*boxes: tuple[float, ...]) -> Annotations:
    return Annotations.of(boxes, range(len(boxes)))


def test_resize_squashes_boxes():
    image, found = geometry.resize(picture(), objects((4, 5, 8, 15)), (40, 20))
    assert image.shape == (40, 20, 3)
    assert found.boxes.tolist() == [[2, 10, 4, 30]]
    assert found.area.tolist() == [40]


def test_resize_to_the_same_size_changes_nothing():
    given = picture()
    assert geometry.resize(given, objects(), (20, 40))[0] is given


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_equals_the_resize_of_classifiers(channels):
    given = picture(37, 53, channels)
    assert np.array_equal(geometry.resize_pixels(given, (20, 90)), resize(given, (20, 90)))


def test_crop_keeps_objects_by_their_centres():
    given = objects((0, 0, 10, 10), (8, 4, 20, 10), (30, 10, 40, 20), (5, 0, 15, 20))
    image, found = geometry.crop(picture(), given, (10, 5, 30, 15))
    assert np.array_equal(image, picture()[5:15, 10:30])
    assert found.classes.tolist() == [1]
    assert found.boxes.tolist() == [[0, 0, 10, 5]]


def test_expand_moves_boxes():
    image, found = geometry.expand(picture(), objects((1, 2, 3, 4)), (60, 80), (30, 10), (1, 2, 3))
    assert np.array_equal(image[30:50, 10:50], picture())
    assert image[0, 0].tolist() == image[50, 50].tolist() == [1, 2, 3]
    assert found.boxes.tolist() == [[11, 32, 13, 34]]


def test_expand_with_one_level():
    image, _ = geometry.expand(picture(), objects(), (60, 80), (0, 0), (9,))
    assert image[59, 79].tolist() == [9, 9, 9]


def test_flips_and_transposition():
    given = objects((1, 2, 5, 9))
    for change, box in (
        (geometry.flip_horizontal, [35, 2, 39, 9]),
        (geometry.flip_vertical, [1, 11, 5, 18]),
        (geometry.transpose, [2, 1, 9, 5]),
    ):
        assert change(picture(), given)[1].boxes.tolist() == [box], change.__name__


@pytest.mark.parametrize(
    "change",
    [
        geometry.flip_horizontal,
        geometry.flip_vertical,
        geometry.transpose,
        lambda image, found: geometry.crop(image, found, (3, 4, 38, 19)),
        lambda image, found: geometry.expand(image, found, (50, 60), (7, 9), (0,)),
        lambda image, found: geometry.resize(image, found, (40, 80)),
    ],
)
def test_boxes_follow_the_pixels(change):
    """A white rectangle is where its box is."""
    image = np.zeros((20, 40, 3), np.uint8)
    image[6:11, 8:20] = 255
    changed, found = change(image, objects((8, 6, 20, 11)))
    rows, columns = np.nonzero(changed[..., 0] > 127)
    painted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert found.boxes.tolist() == [painted]


def test_arguments_stay_unchanged():
    image, given = picture(), objects((1, 2, 5, 9))
    for change in (geometry.flip_horizontal, geometry.flip_vertical, geometry.transpose):
        change(image, given)
    geometry.crop(image, given, (2, 3, 30, 15))
    assert np.array_equal(image, picture())
    assert given.boxes.tolist() == [[1, 2, 5, 9]]
