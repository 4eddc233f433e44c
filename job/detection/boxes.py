"""Axis-aligned boxes as arrays ``[n, 4]``.

A box is ``x0 y0 x1 y1`` in pixels, float32 or float64. Coordinates are positions of pixel edges:
the first pixel of a row spans 0 to 1, and a box over the whole image is ``0 0 width height``.
Therefore a width is ``x1 - x0``, and no function adds a pixel.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from job.errors import DataError

Boxes = npt.NDArray[np.floating[Any]]
Values = npt.NDArray[np.floating[Any]]
# Height and width, as in job.data.transforms.
Size = tuple[int, int]

# Boxes of tools that count pixels from 0 exceed the image by one pixel.
TOLERANCE_PIXELS = 1.0
# Larger sides and coordinates are errors of the file. Their squares are exact in float64.
MAX_SIDE = 1_000_000


def checked(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return boxes as float64 ``[n, 4]``; an empty sequence gives ``[0, 4]``.

    Raises:
        ValueError: the shape is not ``[n, 4]``.
    """
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"expected boxes [n, 4], found shape {list(array.shape)}")
    return array


def areas(boxes: Boxes) -> Values:
    """Return the area of each box; 0 if the box is empty."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    product: Values = sides[..., 0] * sides[..., 1]
    return product


def intersections(first: Boxes, second: Boxes) -> Values:
    """Return the common area of each pair, ``[n, m]``."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(high - low, 0)
    product: Values = sides[..., 0] * sides[..., 1]
    return product


def iou(first: Boxes, second: Boxes) -> Values:
    """Return the intersection over union of each pair, ``[n, m]``; 0 for two empty boxes."""
    common = intersections(first, second)
    union = areas(first)[:, None] + areas(second)[None, :] - common
    return _ratio(common, union)


def coverage(first: Boxes, second: Boxes) -> Values:
    """Return the share of each first box that each second box covers, ``[n, m]``."""
    common = intersections(first, second)
    return _ratio(common, np.broadcast_to(areas(first)[:, None], common.shape))


def _ratio(part: Values, whole: Values) -> Values:
    result: Values = np.divide(part, whole, out=np.zeros_like(part), where=part > 0)
    return result


def ordered(boxes: Boxes) -> Boxes:
    """Return boxes with ``x0 <= x1`` and ``y0 <= y1``; swapped corners are exchanged."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=-1)


def clip(boxes: Boxes, size: Size) -> Boxes:
    """Return boxes limited to an image of ``size`` (height, width); a box may become empty."""
    height, width = size
    limits = np.array([width, height, width, height], boxes.dtype)
    return np.clip(boxes, 0, limits)


def not_empty(boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Return for each box whether it has positive width and height."""
    result: npt.NDArray[np.bool_] = np.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    return result


def to_centres(boxes: Boxes, size: Size) -> Boxes:
    """Return ``cx cy w h`` as shares of the image's width and height, as ``yolo_loss`` expects.

    Args:
        boxes: ``[n, 4]`` in pixels.
        size: height and width of the image, in pixels.
    """
    height, width = size
    scale = np.array([width, height, width, height], boxes.dtype)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    sides = boxes[..., 2:] - boxes[..., :2]
    return np.concatenate([centres, sides], axis=-1) / scale


def from_centres(centres: Boxes, size: Size) -> Boxes:
    """Return ``x0 y0 x1 y1`` in pixels; the inverse of ``to_centres``."""
    height, width = size
    pixels = centres * np.array([width, height, width, height], centres.dtype)
    half = pixels[..., 2:] / 2
    return np.concatenate([pixels[..., :2] - half, pixels[..., :2] + half], axis=-1)


def check_inside(
    box: tuple[float, ...], size: Size, where: str, written: tuple[float, ...]
) -> None:
    """Reject a box that exceeds its image by more than a pixel.

    Args:
        box: ``x0 y0 x1 y1``.
        size: height and width of the image.
        where: file and element of the box, for the message.
        written: the box as it is in the file, for the message.

    Raises:
        DataError: the box exceeds the image.
    """
    height, width = size
    low, high = min(box[:2]), max(box[2] - width, box[3] - height)
    if low < -TOLERANCE_PIXELS or high > TOLERANCE_PIXELS:
        raise DataError(
            f"{where}: the box {' '.join(f'{value:g}' for value in written)} is outside the image "
            f"of {width}x{height} pixels",
            "Correct the box, or check that the file belongs to this image.",
        )
