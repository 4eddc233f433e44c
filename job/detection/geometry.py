"""Changes of an image and its boxes: resize, crop, expand, flip, transpose.

Images are uint8 ``[height, width, channels]``. Boxes are in the convention of
``job.detection.boxes``, so a flip of an image of width w moves an edge from x to w - x. All
functions are exact and use no random numbers; see ``job.detection.augment``. A result can be a view
of the argument.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from job.detection import boxes as box_arrays
from job.detection.annotations import Annotations, Bools
from job.detection.boxes import Size

Pixels = npt.NDArray[np.uint8]
Labelled = tuple[Pixels, Annotations]
# x0, y0, x1, y1 in whole pixels.
Window = tuple[int, int, int, int]


def resize(image: Pixels, objects: Annotations, size: Size) -> Labelled:
    """Resize an image to ``size`` (height, width); its aspect ratio can change.

    Bilinear with antialiasing, by Pillow, as ``job.data.transforms.resize``.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image, objects
    scale = np.array([size[1] / width, size[0] / height] * 2)
    return resize_pixels(image, size), objects.moved(objects.boxes * scale)


def resize_pixels(image: Pixels, size: Size) -> Pixels:
    """Resize an image to ``size`` (height, width)."""
    if image.shape[2] == 3:
        return _resized(image, size)
    planes = [_resized(image[..., channel], size) for channel in range(image.shape[2])]
    return np.stack(planes, axis=2)


def _resized(pixels: Pixels, size: Size) -> Pixels:
    source = PillowImage.fromarray(np.ascontiguousarray(pixels))
    resized = source.resize((size[1], size[0]), PillowImage.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8)


def crop(image: Pixels, objects: Annotations, window: Window) -> Labelled:
    """Cut out a part of an image.

    Objects whose centre is inside the window are kept and limited to it. The other objects are
    removed, because a small part of an object cannot be recognized.

    Args:
        image: the image.
        objects: its objects.
        window: the part, inside the image.
    """
    x0, y0, x1, y1 = window
    kept = objects.take(centred_in(objects, window))
    boxes = kept.boxes - np.array([x0, y0, x0, y0])
    inside = kept.moved(box_arrays.clip(boxes, (y1 - y0, x1 - x0)))
    return image[y0:y1, x0:x1], inside.take(box_arrays.not_empty(inside.boxes))


def centred_in(objects: Annotations, window: Window) -> Bools:
    """Return for each object whether its centre is inside the window."""
    centres = (objects.boxes[:, :2] + objects.boxes[:, 2:]) / 2
    inside: Bools = np.all((centres > window[:2]) & (centres < window[2:]), axis=1)
    return inside


def expand(
    image: Pixels,
    objects: Annotations,
    size: Size,
    offset: tuple[int, int],
    fill: Sequence[int],
) -> Labelled:
    """Place an image on a larger canvas of one colour.

    Args:
        image: the image.
        objects: its objects.
        size: height and width of the canvas.
        offset: top and left edge of the image on the canvas.
        fill: level of each channel of the canvas, 0 to 255.
    """
    height, width = image.shape[:2]
    top, left = offset
    canvas = np.empty((*size, image.shape[2]), np.uint8)
    canvas[:] = np.asarray(fill, np.uint8)
    canvas[top : top + height, left : left + width] = image
    return canvas, objects.moved(objects.boxes + np.array([left, top, left, top]))


def flip_horizontal(image: Pixels, objects: Annotations) -> Labelled:
    """Exchange left and right."""
    width = image.shape[1]
    boxes = objects.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return image[:, ::-1], objects.moved(boxes)


def flip_vertical(image: Pixels, objects: Annotations) -> Labelled:
    """Exchange top and bottom."""
    height = image.shape[0]
    boxes = objects.boxes.copy()
    boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
    return image[::-1], objects.moved(boxes)


def transpose(image: Pixels, objects: Annotations) -> Labelled:
    """Exchange rows and columns: the result has shape ``[width, height, channels]``."""
    return image.transpose(1, 0, 2), objects.moved(objects.boxes[:, [1, 0, 3, 2]])
