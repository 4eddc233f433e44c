"""Boxes and scores from the outputs of YOLO heads, and non-maximum suppression.

``decode`` computes what Paddle's ``yolo_box`` computes with ``scale_x_y=1`` and without IoU
awareness. The output of a head has a row of channels for each anchor: ``tx ty tw th``, objectness,
and one channel per class. For the cell in column i and row j of a head of w x h cells, an anchor of
pw x ph pixels, and an image of W x H pixels:

* centre: ``(i + sigmoid(tx)) * W / w``, ``(j + sigmoid(ty)) * H / h``
* width: ``exp(tw) * pw * W / (stride * w)``
* height: ``exp(th) * ph * H / (stride * h)``
* score of a class: ``sigmoid(objectness) * sigmoid(class)``

``select`` does what Paddle's ``multiclass_nms3`` does with ``normalized=True``,
``background_label=-1`` and ``nms_eta=1``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from job.detection import boxes as box_arrays
from job.detection.annotations import Detections, class_ranks
from job.detection.boxes import Size

Floats = npt.NDArray[np.float32]

# Boxes that are compared with all kept boxes at once.
_BLOCK = 512

# Values of a box before its classes: tx, ty, tw, th, objectness.
_BOX_VALUES = 5


@dataclass(frozen=True, eq=False)
class Head:
    """One head of a network.

    Attributes:
        stride: pixels of the network's input per cell, such as 8, 16 or 32.
        anchors: width and height of each anchor, in pixels of the network's input.
    """

    stride: int
    anchors: tuple[tuple[float, float], ...]

    def channels(self, classes: int) -> int:
        """Return the channels of the head's output."""
        return len(self.anchors) * (_BOX_VALUES + classes)


@dataclass(frozen=True)
class Selection:
    """Settings of ``select``; the defaults are PaddleDetection's for YOLOv3.

    Attributes:
        score_threshold: a detection needs a higher score.
        nms_top_k: largest number of detections of a class, best first, that suppression compares.
        nms_threshold: a detection is removed if its IoU with a better one of its class is higher.
        keep_top_k: largest number of detections of an image that are returned.
    """

    score_threshold: float = 0.01
    nms_top_k: int = 1000
    nms_threshold: float = 0.45
    keep_top_k: int = 100


def decode(
    output: Floats,
    head: Head,
    image_sizes: npt.ArrayLike,
    *,
    objectness_threshold: float = 0.01,
    clip: bool = True,
) -> tuple[Floats, Floats]:
    """Return the boxes of a head in pixels of the images, and their scores.

    Args:
        output: float32 ``[n, anchors * (5 + classes), h, w]``.
        head: stride and anchors of the head.
        image_sizes: height and width of each image, ``[n, 2]``.
        objectness_threshold: boxes with a lower objectness get coordinates and scores of 0.
        clip: limit corners to 0 and to width - 1 or height - 1, as Paddle does.

    Returns:
        Boxes float32 ``[n, anchors * h * w, 4]`` and scores float32
        ``[n, anchors * h * w, classes]``. The order is by anchor, then by row, then by column.

    Raises:
        ValueError: the number of channels is no multiple of the anchors, or leaves no class.
    """
    count, channels, height, width = output.shape
    anchors = len(head.anchors)
    if channels % anchors or channels // anchors < 6:
        raise ValueError(
            f"expected channels for {anchors} anchors with 5 values and at least one class each, "
            f"found {channels}"
        )
    rows = output.reshape(count, anchors, channels // anchors, height, width)
    # [n, anchors, h, w, values]
    rows = np.moveaxis(rows, 2, -1)
    corners = _corners(rows, head, np.asarray(image_sizes, np.float32), clip=clip)
    objectness = _sigmoid(rows[..., 4])
    # Most cells of a trained network are empty, and 80 classes take most of the time.
    kept = objectness >= objectness_threshold
    scores = np.zeros((*kept.shape, rows.shape[-1] - 5), np.float32)
    scores[kept] = objectness[kept][:, None] * _sigmoid(rows[kept][:, 5:])
    corners[~kept] = 0
    cells_per_image = anchors * height * width
    return (
        corners.reshape(count, cells_per_image, 4),
        scores.reshape(count, cells_per_image, scores.shape[-1]),
    )


def _corners(rows: Floats, head: Head, image_sizes: Floats, *, clip: bool) -> Floats:
    """Return ``x0 y0 x1 y1`` of all cells, ``[n, anchors, h, w, 4]``.

    Args:
        rows: float32 ``[n, anchors, h, w, values]``.
        head: stride and anchors of the head.
        image_sizes: height and width of each image, ``[n, 2]``.
        clip: see ``decode``.
    """
    height, width = rows.shape[2:4]
    images = image_sizes.reshape(-1, 1, 1, 1, 2)[..., ::-1]
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    places = np.stack([column, row], axis=-1).astype(np.float32)
    grid = np.array([width, height], np.float32)
    sizes = np.array(head.anchors, np.float32)[:, None, None, :]
    centres = (places + _sigmoid(rows[..., :2])) * images / grid
    with np.errstate(over="ignore"):
        sides = np.exp(rows[..., 2:4]) * sizes * images / (grid * np.float32(head.stride))
        half = sides / 2
        corners = np.concatenate([centres - half, centres + half], axis=-1)
    if clip:
        limits = np.concatenate([images, images], axis=-1) - 1
        corners = np.concatenate(
            [np.maximum(corners[..., :2], 0), np.minimum(corners[..., 2:], limits[..., 2:])],
            axis=-1,
        )
    return corners


def decode_all(
    outputs: Sequence[Floats],
    heads: Sequence[Head],
    image_sizes: npt.ArrayLike,
    *,
    objectness_threshold: float = 0.01,
    clip: bool = True,
) -> tuple[Floats, Floats]:
    """Return boxes and scores of all heads, in the order of the heads; see ``decode``."""
    found = [
        decode(output, head, image_sizes, objectness_threshold=objectness_threshold, clip=clip)
        for output, head in zip(outputs, heads, strict=True)
    ]
    return (
        np.concatenate([boxes for boxes, _ in found], axis=1),
        np.concatenate([scores for _, scores in found], axis=1),
    )


def select(boxes: Floats, scores: Floats, settings: Selection | None = None) -> Detections:
    """Return the best detections of one image. Detections that a better one covers are left out.

    Detections are in the order of Paddle: by class, then by descending score. Equal scores keep
    the order of their boxes.

    Args:
        boxes: float32 ``[m, 4]``.
        scores: float32 ``[m, classes]``. A NaN is never selected.
        settings: thresholds and limits; the defaults if None.
    """
    settings = settings or Selection()
    classes, numbers = np.nonzero((scores > np.float32(settings.score_threshold)).T)
    values = scores[numbers, classes]
    # Equal scores are in the order of classes, then of boxes.
    order = np.argsort(-values, kind="stable")
    order = order[class_ranks(classes[order]) < settings.nms_top_k]
    classes, numbers, values = classes[order], numbers[order], values[order]
    kept = suppress(boxes[numbers], classes, settings.nms_threshold, settings.keep_top_k)
    kept = kept[np.argsort(classes[kept], kind="stable")]
    return Detections.of(boxes[numbers[kept]], values[kept], classes[kept])


def suppress(
    boxes: Floats, classes: npt.NDArray[np.int64], threshold: float, most: int
) -> npt.NDArray[np.int64]:
    """Return the numbers of the boxes that greedy non-maximum suppression keeps.

    Args:
        boxes: float32 ``[m, 4]``, the best box first.
        classes: ``[m]``. Boxes of different classes do not remove each other.
        threshold: a box is removed if its IoU with a kept box is higher.
        most: number of boxes after which the search ends. No box depends on a worse one, so the
            search does not read the rest.
    """
    limit = np.float32(threshold)
    kept: list[int] = []
    for start in range(0, len(boxes), _BLOCK):
        rest = np.arange(start, min(start + _BLOCK, len(boxes)))
        covered = (box_arrays.iou(boxes[rest], boxes[kept]) > limit) & (
            classes[rest][:, None] == classes[kept][None, :]
        )
        rest = rest[~covered.any(axis=1)]
        while rest.size and len(kept) < most:
            first, rest = rest[0], rest[1:]
            kept.append(int(first))
            overlap = box_arrays.iou(boxes[first][None, :], boxes[rest])[0]
            rest = rest[(overlap <= limit) | (classes[rest] != classes[first])]
        if len(kept) >= most:
            break
    return np.array(kept, np.int64)


def detections(
    outputs: Sequence[Floats],
    heads: Sequence[Head],
    image_sizes: Sequence[Size],
    settings: Selection | None = None,
) -> list[Detections]:
    """Return the detections of each image from the outputs of all heads.

    Corners are in order and inside the image.

    Args:
        outputs: output of each head, float32 ``[n, anchors * (5 + classes), h, w]``.
        heads: the heads in the same order.
        image_sizes: height and width of each image.
        settings: thresholds and limits; the defaults if None.
    """
    settings = settings or Selection()
    boxes, scores = decode_all(
        outputs, heads, image_sizes, objectness_threshold=settings.score_threshold
    )
    found = [select(*each, settings) for each in zip(boxes, scores, strict=True)]
    return [
        Detections.of(each.boxes, each.scores, each.classes, size)
        for each, size in zip(found, image_sizes, strict=True)
    ]


def _sigmoid(values: Floats) -> Floats:
    # Paddle divides in double precision and rounds the result.
    with np.errstate(over="ignore"):
        exponential = np.exp(-values)
    result: Floats = (1.0 / (1.0 + exponential.astype(np.float64))).astype(np.float32)
    return result
