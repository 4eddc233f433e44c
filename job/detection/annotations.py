"""The objects and the detections of one image."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from job.detection import boxes as box_arrays
from job.detection.boxes import Size

Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Annotations:
    """The objects of one image; an image may have none.

    Attributes:
        boxes: float64 ``[n, 4]``, see ``job.detection.boxes``. A box may exceed its image by up to
            a pixel, because the metrics use boxes as they are in the file.
        classes: int64 ``[n]``, numbers of the classes from 0.
        difficult: bool ``[n]``. VOC's metric ignores difficult objects.
        crowd: bool ``[n]``. COCO's metric ignores crowds, which are boxes around many objects.
        area: float64 ``[n]``, square pixels of the object. COCO gives the area of the object's
            outline, which is smaller than its box. Otherwise it is the area of the box.
    """

    boxes: Float64s
    classes: Ints
    difficult: Bools
    crowd: Bools
    area: Float64s

    def __post_init__(self) -> None:
        count = len(self.boxes)
        columns = (self.classes, self.difficult, self.crowd, self.area)
        if self.boxes.shape != (count, 4) or any(each.shape != (count,) for each in columns):
            shapes = [list(each.shape) for each in (self.boxes, *columns)]
            raise ValueError(f"expected boxes [n, 4] and four arrays [n], found {shapes}")

    @classmethod
    def of(
        cls,
        boxes: npt.ArrayLike,
        classes: npt.ArrayLike,
        *,
        difficult: npt.ArrayLike | None = None,
        crowd: npt.ArrayLike | None = None,
        area: npt.ArrayLike | None = None,
    ) -> "Annotations":
        """Return annotations; by default nothing is difficult or a crowd, and areas are of boxes.

        Args:
            boxes: ``[n, 4]``, see ``job.detection.boxes``.
            classes: ``[n]``, numbers of the classes from 0.
            difficult: ``[n]``, whether VOC's metric ignores the object.
            crowd: ``[n]``, whether the box is around many objects.
            area: ``[n]``, square pixels.

        Raises:
            ValueError: the lengths differ.
        """
        array = box_arrays.checked(boxes)
        none = np.zeros(len(array), np.bool_)
        return cls(
            boxes=array,
            classes=np.asarray(classes, np.int64).reshape(-1),
            difficult=none if difficult is None else np.asarray(difficult, np.bool_),
            crowd=none if crowd is None else np.asarray(crowd, np.bool_),
            area=np.asarray(box_arrays.areas(array) if area is None else area, np.float64),
        )

    @classmethod
    def none(cls) -> "Annotations":
        """Return the annotations of an image without objects."""
        return cls.of([], [])

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, kept: Bools | Ints) -> "Annotations":
        """Return some of the objects.

        Args:
            kept: bool ``[n]``, or numbers of objects.
        """
        return Annotations(
            self.boxes[kept],
            self.classes[kept],
            self.difficult[kept],
            self.crowd[kept],
            self.area[kept],
        )

    def moved(self, boxes: npt.NDArray[np.floating[Any]]) -> "Annotations":
        """Return the objects with other boxes; each area changes as much as its box.

        Args:
            boxes: ``[n, 4]``, in the order of the objects.
        """
        before = box_arrays.areas(self.boxes)
        factor = np.divide(
            box_arrays.areas(boxes), before, out=np.ones_like(before), where=before > 0
        )
        return replace(self, boxes=boxes.astype(np.float64), area=self.area * factor)

    def clipped(self, size: Size) -> "Annotations":
        """Return the objects limited to an image of ``size`` (height, width).

        Objects outside the image are removed.
        """
        inside = self.moved(box_arrays.clip(self.boxes, size))
        return inside.take(box_arrays.not_empty(inside.boxes))


@dataclass(frozen=True, eq=False)
class Detections:
    """The boxes that a model found in one image.

    Attributes:
        boxes: float64 ``[n, 4]``, see ``job.detection.boxes``; corners in order.
        scores: float64 ``[n]``, higher is more certain; never NaN.
        classes: int64 ``[n]``, numbers of the classes from 0.
    """

    boxes: Float64s
    scores: Float64s
    classes: Ints

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or not (
            self.scores.shape == self.classes.shape == (count,)
        ):
            raise ValueError(
                f"expected boxes [n, 4] and two arrays [n], found {list(self.boxes.shape)}, "
                f"{list(self.scores.shape)} and {list(self.classes.shape)}"
            )
        # pycocotools would not count an unmatched detection of negative area as false.
        if not np.all(self.boxes[:, 2:] >= self.boxes[:, :2]):
            raise ValueError("expected x0 <= x1 and y0 <= y1; use Detections.of")
        if np.isnan(self.scores).any():
            raise ValueError("expected scores without NaN; use Detections.of")

    @classmethod
    def of(
        cls,
        boxes: npt.ArrayLike,
        scores: npt.ArrayLike,
        classes: npt.ArrayLike,
        size: Size | None = None,
    ) -> "Detections":
        """Return detections of any model, with corners in order and inside the image.

        A box with NaN becomes an empty box, which matches no object. Therefore it counts as false.
        A detection whose score is NaN is removed, as a score threshold would do.

        Args:
            boxes: ``[n, 4]``.
            scores: ``[n]``.
            classes: ``[n]``.
            size: height and width of the image; None: boxes are not clipped.

        Raises:
            ValueError: the lengths differ.
        """
        array = box_arrays.checked(boxes)
        array = np.where(np.isnan(array).any(axis=1, keepdims=True), 0.0, array)
        array = box_arrays.ordered(array).astype(np.float64)
        if size is not None:
            array = box_arrays.clip(array, size).astype(np.float64)
        values = np.asarray(scores, np.float64).reshape(-1)
        numbers = np.asarray(classes, np.int64).reshape(-1)
        if not len(array) == len(values) == len(numbers):
            raise ValueError(
                f"expected as many boxes as scores and classes, found {len(array)}, "
                f"{len(values)} and {len(numbers)}"
            )
        kept = ~np.isnan(values)
        return cls(array[kept], values[kept], numbers[kept])

    def __len__(self) -> int:
        return len(self.boxes)


def class_ranks(classes: Ints) -> Ints:
    """Return the place of each of ``[n]`` elements in its class, from 0, int64 ``[n]``."""
    # A stable sort by class keeps the order in each class.
    by_class = np.argsort(classes, kind="stable")
    _, starts, counts = np.unique(classes[by_class], return_index=True, return_counts=True)
    ranks = np.empty(len(classes), np.int64)
    ranks[by_class] = np.arange(len(classes)) - np.repeat(starts, counts)
    return ranks
