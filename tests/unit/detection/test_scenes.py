"""Scenes: what they depend on, exact boxes, and sizes for several heads."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from job.data.sources import digits
from job.detection import boxes
from job.detection.scenes import Scenes, SceneSettings

SIZE = SceneSettings()


@cache
def scenes(seed: int = 0, settings: SceneSettings = SIZE) -> Scenes:
    source = digits(1)
    return Scenes(source.images[..., 0], source.labels, seed, settings)


def test_a_scene_depends_on_seed_and_number():
    image, objects = scenes(1)(5)
    for _ in range(2):
        again, found = Scenes(scenes().digits, scenes().labels, 1)(5)
        assert np.array_equal(image, again)
        assert np.array_equal(objects.boxes, found.boxes)
        assert np.array_equal(objects.classes, found.classes)
    for other in (scenes(1)(4), scenes(1)(6), scenes(2)(5)):
        assert not np.array_equal(image, other[0])


@pytest.mark.parametrize(("channels", "size"), [(1, (96, 112)), (3, (128, 128))])
def test_images(channels, size):
    settings = replace(SIZE, size=size, channels=channels)
    for number in range(20):
        image, objects = scenes(0, settings)(number)
        assert (image.shape, image.dtype) == ((*size, channels), np.uint8)
        assert np.array_equal(boxes.clip(objects.boxes, size), objects.boxes)


def test_boxes_are_exact():
    """Without a background, each box is the smallest box around the pixels of its digit."""
    settings = replace(SIZE, small=(0, 0, 16, 30), large=(1, 1, 16, 80), noise=0)
    for number in range(40):
        image, objects = scenes(0, settings)(number)
        background, _ = scenes(0, replace(settings, large=(0, 0, 16, 80)))(number)
        rows, columns = np.nonzero((image != background).any(axis=2))
        painted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert objects.boxes.tolist() == [painted]


def test_heights_and_numbers():
    settings = replace(SIZE, small=(2, 4, 16, 30), large=(1, 2, 48, 80), size=(400, 400))
    for number in range(30):
        _, objects = scenes(0, settings)(number)
        heights = objects.boxes[:, 3] - objects.boxes[:, 1]
        large = heights > 40
        assert set(large[:1]) == {True}
        assert 1 <= large.sum() <= 2
        assert 2 <= (~large).sum() <= 4
        assert heights[large].min() >= 48
        assert heights[large].max() <= 80
        assert heights[~large].min() >= 16
        assert heights[~large].max() <= 30


def test_overlaps_are_small():
    for number in range(50):
        _, objects = scenes()(number)
        overlap = boxes.iou(objects.boxes, objects.boxes) - np.eye(len(objects))
        assert overlap.max() <= 0.05
        covered = boxes.coverage(objects.boxes, objects.boxes) - np.eye(len(objects))
        assert covered.max() <= 0.15 + 1e-12


def test_all_digits_occur_in_both_sizes():
    found = [scenes()(number)[1] for number in range(100)]
    labels = np.concatenate([each.classes for each in found])
    heights = np.concatenate([each.boxes[:, 3] - each.boxes[:, 1] for each in found])
    for chosen in (heights <= 30, heights >= 48):
        counts = np.bincount(labels[chosen], minlength=10)
        assert counts.min() > 0.03 * counts.sum()


def test_a_digit_larger_than_the_scene_is_left_out():
    settings = replace(SIZE, size=(32, 32), small=(0, 0, 16, 30))
    assert len(scenes(0, settings)(0)[1]) == 0
