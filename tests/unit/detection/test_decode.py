"""Decoding and suppression compared with values computed by hand.

tests/engine/detection/test_decode.py compares both with Paddle.
"""

import math

import numpy as np
import pytest

from job.detection import boxes as box_arrays
from job.detection import decode
from job.detection.decode import Head, Selection

HEAD = Head(stride=8, anchors=((10.0, 20.0), (30.0, 6.0)))
CLASSES = 3


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def outputs(height: int = 2, width: int = 4) -> np.ndarray:
    """Two images without objects."""
    rows = np.zeros((2, 2, 5 + CLASSES, height, width), np.float32)
    rows[:, :, 4] = -20
    return rows


def flat(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(rows.shape[0], -1, *rows.shape[3:])


def test_one_box():
    """Anchor 1, row 1, column 2 of 4x2 cells; the image is twice as large as the input."""
    rows = outputs()
    rows[1, 1, :5, 1, 2] = [logit(0.25), logit(0.75), math.log(2), math.log(0.5), logit(0.8)]
    rows[1, 1, 5:, 1, 2] = [logit(0.5), logit(0.9), logit(0.1)]
    boxes, scores = decode.decode(flat(rows), HEAD, [(16, 32), (32, 64)])
    assert boxes.shape == (2, 16, 4)
    place = 1 * 8 + 1 * 4 + 2
    # Centre 2.25 cells of 16 and 1.75 cells of 16 pixels, 120 pixels wide, 6 pixels high.
    assert boxes[1, place] == pytest.approx([0, 25, 63, 31], abs=1e-4)
    assert scores[1, place] == pytest.approx([0.4, 0.72, 0.08], abs=1e-6)
    assert np.count_nonzero(scores.any(axis=2)) == 1
    assert np.count_nonzero(boxes.any(axis=2)) == 1
    assert boxes.dtype == scores.dtype == np.float32
    unlimited, _ = decode.decode(flat(rows), HEAD, [(16, 32), (32, 64)], clip=False)
    assert unlimited[1, place] == pytest.approx([36 - 60, 25, 36 + 60, 31], abs=1e-4)


def test_objectness_threshold():
    rows = outputs()
    rows[0, 0, 4, 0, 0] = logit(0.3)
    for threshold, found in ((0.2, 1), (0.4, 0)):
        _, scores = decode.decode(flat(rows), HEAD, [(16, 32)] * 2, objectness_threshold=threshold)
        assert np.count_nonzero(scores.any(axis=2)) == found


def test_extreme_outputs():
    """Outputs of a broken model give no warnings and boxes inside the image."""
    rows = outputs()
    rows[:, :, :5, 0, 0] = [[-1e4, 1e4, 1e4, -1e4, 1e4], [np.inf, -np.inf, np.inf, 0, np.inf]]
    boxes, scores = decode.decode(flat(rows), HEAD, [(16, 32)] * 2)
    assert np.isfinite(scores).all()
    assert boxes[..., [0, 2]].min() >= 0
    assert boxes[..., [0, 2]].max() <= 31


def test_channels_must_fit_the_anchors():
    for channels in (15, 10):
        with pytest.raises(ValueError, match=f"2 anchors .* found {channels}"):
            decode.decode(np.zeros((1, channels, 2, 2), np.float32), HEAD, [(16, 16)])


def test_heads_follow_each_other():
    rows = outputs()
    fine = flat(rows)
    coarse = flat(rows[:, :1, :, :1])
    heads = (HEAD, Head(16, ((40.0, 40.0),)))
    boxes, scores = decode.decode_all([fine, coarse], heads, [(16, 32)] * 2)
    assert (boxes.shape, scores.shape) == ((2, 20, 4), (2, 20, 3))


def array(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


BOXES = array((0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 10, 4), (50, 50, 60, 60))


def test_suppression_within_a_class():
    scores = array((0.9,), (0.8,), (0.7,), (0.6,))
    found = decode.select(BOXES, scores)
    assert found.boxes.tolist() == BOXES[[0, 2, 3]].tolist()
    assert found.scores == pytest.approx([0.9, 0.7, 0.6], abs=1e-7)


def test_an_iou_equal_to_the_threshold_is_kept():
    scores = array((0.9,), (0.8,), (0.7,), (0.6,))
    for threshold, kept in ((0.9, 4), (0.89, 3)):
        assert len(decode.select(BOXES, scores, Selection(nms_threshold=threshold))) == kept


def test_a_removed_box_removes_no_other_box():
    chain = array((0, 0, 10, 10), (0, 4, 10, 14), (0, 8, 10, 18))
    found = decode.select(chain, array((0.9,), (0.8,), (0.7,)), Selection(nms_threshold=0.4))
    assert found.boxes.tolist() == chain[[0, 2]].tolist()


def test_classes_do_not_suppress_each_other():
    scores = array((0.5, 0.9), (0.95, 0.1), (0, 0), (0.01, 0.02))
    found = decode.select(BOXES, scores)
    assert found.classes.tolist() == [0, 1, 1]
    assert found.boxes.tolist() == BOXES[[1, 0, 3]].tolist()


def test_limits():
    scores = np.linspace(0.9, 0.1, 8, dtype=np.float32).reshape(4, 2)
    apart = array((0, 0, 1, 1), (2, 0, 3, 1), (4, 0, 5, 1), (6, 0, 7, 1))
    best = decode.select(apart, scores, Selection(keep_top_k=3))
    assert best.classes.tolist() == [0, 0, 1]
    assert best.scores == pytest.approx([0.9, 0.671, 0.786], abs=1e-3)
    seen = decode.select(apart, scores, Selection(nms_top_k=1))
    assert seen.scores == pytest.approx([0.9, 0.786], abs=1e-3)


def test_nan_scores_are_never_selected():
    scores = array((np.nan,), (0.5,), (np.nan,), (0.4,))
    assert len(decode.select(BOXES, scores)) == 2
    assert len(decode.select(BOXES, np.full((4, 2), np.nan, np.float32))) == 0
    assert len(decode.select(BOXES[:0], scores[:0])) == 0


@pytest.mark.parametrize("seed", range(10))
def test_suppression_equals_the_definition(seed):
    """A box is kept if its IoU with each kept, better box of its class is at most the threshold."""
    rng = np.random.default_rng(seed)
    count = 1200 if seed == 0 else 80
    low = rng.uniform(0, 60, (count, 2))
    boxes = np.hstack([low, low + rng.uniform(5, 40, (count, 2))]).astype(np.float32)
    classes = rng.integers(0, 3, count)
    overlap = box_arrays.iou(boxes, boxes) * (classes[:, None] == classes[None, :])
    kept: list[int] = []
    for number in range(count):
        if (overlap[number, kept] <= np.float32(0.45)).all():
            kept.append(number)
    assert decode.suppress(boxes, classes, 0.45, count).tolist() == kept
    assert decode.suppress(boxes, classes, 0.45, 5).tolist() == kept[:5]
    assert kept[-1] > 512 or seed


def test_detections_of_a_batch():
    rows = outputs()
    rows[1, 0, 4:6, 1, 3] = 5
    found = decode.detections([flat(rows)], [HEAD], [(16, 32), (32, 64)])
    assert [len(each) for each in found] == [0, 3]
    # Two classes have an undecided output of 0, which is a score of one half.
    assert found[1].classes.tolist() == [0, 1, 2]
    assert found[1].boxes[0] == pytest.approx([46, 4, 63, 31], abs=1e-4)
