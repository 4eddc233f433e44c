"""The objects of a batch as arrays of one size, as ``yolo_loss`` reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from job.detection import boxes as box_arrays
from job.detection.annotations import Annotations
from job.detection.boxes import Size


@dataclass(frozen=True, eq=False)
class Targets:
    """The objects of N images, in rows of zeros up to the largest number of objects.

    Attributes:
        boxes: float32 ``[N, most, 4]``: cx cy w h as shares of the image's width and height.
            ``yolo_loss`` ignores rows of zeros.
        classes: int32 ``[N, most]``.
    """

    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]


def targets(annotations: Sequence[Annotations], size: Size) -> Targets:
    """Return the objects of images that have the same size.

    Crowds are omitted, because their boxes are around many objects. Boxes are limited to the image.

    Args:
        annotations: the objects of each image, in pixels.
        size: height and width of the images, in pixels.
    """
    every = [objects.take(~objects.crowd).clipped(size) for objects in annotations]
    most = max([1, *map(len, every)])
    boxes = np.zeros((len(every), most, 4), np.float32)
    classes = np.zeros((len(every), most), np.int32)
    for row, objects in enumerate(every):
        boxes[row, : len(objects)] = box_arrays.to_centres(objects.boxes, size)
        classes[row, : len(objects)] = objects.classes
    return Targets(boxes, classes)
