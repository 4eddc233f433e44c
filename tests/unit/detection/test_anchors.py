"""Anchors of boxes whose best anchors are known."""

import numpy as np
import pytest

from job.detection import anchors
from job.detection.annotations import Annotations
from job.errors import DataError

TRUE = np.array([[12, 10], [14, 40], [60, 30], [90, 100], [200, 60], [150, 300]], dtype=float)


def boxes_around(centres: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = np.repeat(centres, 200, axis=0) * rng.uniform(0.9, 1.1, (200 * len(centres), 2))
    return rng.permutation(drawn)


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_anchors_behind_the_boxes(seed):
    found = anchors.fit(boxes_around(TRUE), 6, seed)
    assert found == pytest.approx(TRUE[np.argsort(TRUE.prod(axis=1))], rel=0.02)


def test_large_boxes_do_not_outweigh_small_ones():
    """With Euclidean distance, both small groups would share an anchor."""
    centres = np.array([[8, 8], [8, 16], [500, 300]], dtype=float)
    found = anchors.fit(np.concatenate([boxes_around(centres), boxes_around(centres[2:], 1)]), 3)
    assert found == pytest.approx(centres, rel=0.02)


def test_the_seed_decides():
    sizes = np.random.default_rng(0).lognormal(3, 1, (500, 2))
    results = [anchors.fit(sizes, 9, seed) for seed in (1, 1, 2)]
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert (np.diff(results[0].prod(axis=1)) >= 0).all()


def test_more_anchors_fit_better():
    sizes = np.random.default_rng(0).lognormal(3, 1, (500, 2))
    fits = [anchors.mean_iou(sizes, anchors.fit(sizes, count)) for count in (1, 3, 9)]
    assert fits == sorted(fits)
    assert fits[-1] > 0.5


def test_mean_iou_of_known_sizes():
    assert anchors.mean_iou([[10, 10], [20, 10]], [[10, 10]]) == 0.75


def test_as_many_sizes_as_anchors():
    sizes = [[1, 1], [1, 1], [3, 3], [2, 5]]
    assert anchors.fit(sizes, 3).tolist() == [[1, 1], [3, 3], [2, 5]]
    with pytest.raises(DataError, match=r"at least 4 different .* found 3"):
        anchors.fit(sizes, 4)
    with pytest.raises(DataError, match="found 0"):
        anchors.fit([], 1)


def test_small_anchors_belong_to_the_first_head():
    fine, coarse = anchors.grouped(TRUE, 2)
    assert (fine.tolist(), coarse.tolist()) == (TRUE[:3].tolist(), TRUE[3:].tolist())
    with pytest.raises(ValueError, match=r"6 anchors .* 4 heads"):
        anchors.grouped(TRUE, 4)


def test_a_box_belongs_to_the_head_with_its_best_anchor():
    heads = [[[10, 10], [20, 20]], [[40, 40]], [[100, 20], [200, 200]]]
    sizes = [[9, 9], [22, 19], [15, 11], [38, 41], [90, 25]]
    assert anchors.shares(sizes, heads) == (0.6, 0.2, 0.2)
    assert anchors.shares(sizes[:1], heads) == (1, 0, 0)


def test_sizes_are_pixels_of_the_input():
    objects = Annotations.of(
        [[0, 0, 10, 20], [-50, 0, 20, 20], [0, 0, 9, 9]], [0, 0, 0], crowd=[0, 0, 1]
    )
    sizes = anchors.scaled_sizes([(objects, (100, 200)), (Annotations.none(), (5, 5))], (50, 400))
    assert sizes.tolist() == [[20, 10], [40, 10]]
    assert anchors.scaled_sizes([], (50, 400)).shape == (0, 2)
