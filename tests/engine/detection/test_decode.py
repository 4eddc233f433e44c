"""Decoding and suppression in NumPy compared with Paddle's operators."""

# ruff: noqa: TID251, I001
from collections.abc import Iterator

# Before paddle, because it selects the legacy program format.
import job.engine  # noqa: F401
import numpy as np
import paddle
import pytest
from tiers import cases

from job.detection import boxes as box_arrays
from job.detection import decode
from job.detection.decode import Head, Selection

pytestmark = pytest.mark.engine
HEADS = (Head(8, ((10, 13), (16, 30))), Head(32, ((116, 90), (156, 198))))
CLASSES = 4


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Run operators at once, whatever earlier tests have chosen."""
    with paddle.base.dygraph.guard(paddle.CPUPlace()):
        yield


def outputs(seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Outputs of both heads with some large values, and image sizes."""
    rng = np.random.default_rng(seed)
    shapes = ((3, 2 * (5 + CLASSES), 8, 12), (3, 2 * (5 + CLASSES), 2, 3))
    values = [rng.normal(-1, 2, shape).astype(np.float32) for shape in shapes]
    return values, rng.integers(20, 700, (3, 2)).astype(np.int32)


def of_paddle(
    values: list[np.ndarray], sizes: np.ndarray, clip: bool
) -> tuple[np.ndarray, np.ndarray]:
    found = [
        paddle.vision.ops.yolo_box(
            paddle.to_tensor(value),
            paddle.to_tensor(sizes),
            anchors=[int(side) for anchor in head.anchors for side in anchor],
            class_num=CLASSES,
            conf_thresh=0.01,
            downsample_ratio=head.stride,
            clip_bbox=clip,
        )
        for value, head in zip(values, HEADS, strict=True)
    ]
    return (
        np.concatenate([boxes.numpy() for boxes, _ in found], axis=1),
        np.concatenate([scores.numpy() for _, scores in found], axis=1),
    )


@pytest.mark.parametrize("clip", [True, False])
def test_decode_equals_yolo_box(clip):
    for seed in range(cases(100)):
        values, sizes = outputs(seed)
        boxes, scores = decode.decode_all(values, HEADS, sizes, clip=clip)
        expected_boxes, expected_scores = of_paddle(values, sizes, clip)
        np.testing.assert_allclose(boxes, expected_boxes, rtol=2e-6, atol=1e-3)
        np.testing.assert_allclose(scores, expected_scores, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "settings", [Selection(), Selection(0.3, 20, 0.5, 15), Selection(0.05, 1000, 0.2, 1000)]
)
def test_select_equals_multiclass_nms3(settings):
    for seed in range(cases(100)):
        values, sizes = outputs(seed)
        boxes, scores = of_paddle(values, sizes, clip=True)
        expected, _, counts = paddle._C_ops.multiclass_nms3(
            paddle.to_tensor(boxes),
            paddle.to_tensor(scores.transpose(0, 2, 1).copy()),
            None,
            settings.score_threshold,
            settings.nms_top_k,
            settings.keep_top_k,
            settings.nms_threshold,
            True,
            1.0,
            -1,
        )
        found = [decode.select(*each, settings) for each in zip(boxes, scores, strict=True)]
        assert [len(each) for each in found] == counts.numpy().tolist()
        rows = np.concatenate(
            [np.column_stack([each.classes, each.scores, each.boxes]) for each in found]
        )
        wanted = expected.numpy().astype(np.float64)
        # For a box in the last pixel, Paddle's yolo_box returns x0 > x1, because it clips only x1.
        wanted[:, 2:] = box_arrays.ordered(wanted[:, 2:])
        np.testing.assert_array_equal(rows, wanted)
