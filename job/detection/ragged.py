"""Objects and detections of many images as arrays, for files and for results of batches.

The arrays of two batches can be concatenated: ``counts`` is the number of rows of each image, and
the other arrays have the rows of all images, in the order of the images.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from job.detection.annotations import Annotations, Detections, Ints

Arrays = Mapping[str, npt.NDArray[Any]]

COUNTS = "counts"
# Array -> dtype and shape of one row.
_OBJECTS: Mapping[str, tuple[type, tuple[int, ...]]] = {
    "boxes": (np.float64, (4,)),
    "classes": (np.int64, ()),
    "difficult": (np.bool_, ()),
    "crowd": (np.bool_, ()),
    "area": (np.float64, ()),
}
_DETECTIONS: Mapping[str, tuple[type, tuple[int, ...]]] = {
    "boxes": (np.float64, (4,)),
    "scores": (np.float64, ()),
    "classes": (np.int64, ()),
}


def arrays_of_objects(images: Sequence[Annotations]) -> Arrays:
    """Return the objects of images as the arrays counts, boxes, classes, difficult, crowd, area."""
    return _joined(images, _OBJECTS)


def arrays_of_detections(images: Sequence[Detections]) -> Arrays:
    """Return the detections of images as the arrays counts, boxes, scores and classes."""
    return _joined(images, _DETECTIONS)


def objects_of(arrays: Arrays) -> list[Annotations]:
    """Return the objects of each image; the inverse of :func:`arrays_of_objects`.

    Raises:
        ValueError: an array is missing, or has another number of rows than ``counts`` gives.
    """
    return [Annotations(**rows) for rows in _split(arrays, _OBJECTS)]


def detections_of(arrays: Arrays) -> list[Detections]:
    """Return the detections of each image; the inverse of :func:`arrays_of_detections`.

    Raises:
        ValueError: an array is missing, or has another number of rows than ``counts`` gives.
    """
    return [Detections(**rows) for rows in _split(arrays, _DETECTIONS)]


def _joined(
    images: Sequence[Any], columns: Mapping[str, tuple[type, tuple[int, ...]]]
) -> dict[str, npt.NDArray[Any]]:
    joined = {COUNTS: np.array([len(image) for image in images], np.int64)}
    for name, (dtype, row) in columns.items():
        empty: npt.NDArray[Any] = np.zeros((0, *row), dtype)
        joined[name] = np.concatenate([empty, *(getattr(image, name) for image in images)])
    return joined


def _split(
    arrays: Arrays, columns: Mapping[str, tuple[type, tuple[int, ...]]]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    missing = [name for name in (COUNTS, *columns) if name not in arrays]
    if missing:
        raise ValueError(f"expected the arrays {COUNTS}, {', '.join(columns)}; {missing} missing")
    counts: Ints = arrays[COUNTS]
    for name, (_, row) in columns.items():
        if arrays[name].shape != (counts.sum(), *row):
            raise ValueError(
                f"{name}: expected shape {[int(counts.sum()), *row]}, "
                f"found {list(arrays[name].shape)}"
            )
    ends = np.cumsum(counts)
    for first, last in zip(ends - counts, ends, strict=True):
        yield {name: arrays[name][first:last] for name in columns}
