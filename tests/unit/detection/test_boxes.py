"""Box arithmetic compared with values computed by hand, and with counted pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.detection import boxes


def array(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def test_iou_of_known_pairs():
    first = array((0, 0, 10, 10), (5, 5, 5, 9))
    second = array((0, 0, 10, 10), (5, 0, 15, 10), (10, 0, 20, 10), (5, 5, 5, 9))
    assert boxes.iou(first, second).tolist() == [[1, 50 / 150, 0, 0], [0, 0, 0, 0]]


def test_coverage_is_the_share_of_the_first_box():
    covered = boxes.coverage(array((0, 0, 10, 10)), array((5, 0, 100, 100), (2, 2, 4, 4)))
    assert covered.tolist() == [[0.5, 0.04]]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_iou_without_boxes(shape):
    first, second = (np.zeros((count, 4)) for count in shape)
    assert boxes.iou(first, second).shape == shape


whole = st.integers(0, 12)


@given(st.lists(st.tuples(whole, whole, whole, whole), min_size=2, max_size=2))
def test_iou_counts_pixels(corners):
    drawn = boxes.ordered(array(*corners))
    masks = []
    for x0, y0, x1, y1 in drawn.astype(int):
        masks.append(np.zeros((12, 12), bool))
        masks[-1][y0:y1, x0:x1] = True
    union = np.count_nonzero(masks[0] | masks[1])
    expected = np.count_nonzero(masks[0] & masks[1]) / union if union else 0
    assert boxes.iou(drawn[:1], drawn[1:])[0, 0] == pytest.approx(expected, abs=1e-15)


def test_iou_keeps_the_dtype():
    assert boxes.iou(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)).dtype == np.float32


def test_ordered_exchanges_swapped_corners():
    assert boxes.ordered(array((9, 2, 1, 8))).tolist() == [[1, 2, 9, 8]]


def test_clip_limits_x_by_the_width_and_y_by_the_height():
    clipped = boxes.clip(array((-5, -5, 50, 50), (41, 3, 45, 9)), (20, 40))
    assert clipped.tolist() == [[0, 0, 40, 20], [40, 3, 40, 9]]
    assert boxes.not_empty(clipped).tolist() == [True, False]


def test_centres_are_shares_of_the_image():
    centres = boxes.to_centres(array((10, 20, 30, 40)), (80, 40))
    assert centres.tolist() == [[0.5, 0.375, 0.5, 0.25]]
    assert boxes.from_centres(centres, (80, 40)).tolist() == [[10, 20, 30, 40]]


def test_checked_refuses_another_shape():
    assert boxes.checked([]).shape == (0, 4)
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        boxes.checked(np.zeros((2, 3)))
