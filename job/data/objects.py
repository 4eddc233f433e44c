"""The objects of a data set's images, and sources whose images have objects instead of labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from job.data.decode import UnreadableImageError
from job.data.sources import ImageFiles
from job.data.transforms import Image, Ints
from job.detection.annotations import Annotations
from job.detection.boxes import Size, check_inside
from job.detection.ragged import COUNTS, Arrays, arrays_of_objects, objects_of


@runtime_checkable
class LabelledSource(Protocol):
    """A source whose images have objects."""

    def read_labelled(self, index: int) -> tuple[Image, Annotations]:
        """Return an image, uint8 ``[height, width, channels]``, and its objects.

        Raises:
            UnreadableImageError: this image cannot be used.
            DataError: a box is outside the image.
        """


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """The objects of many images.

    Attributes:
        arrays: see ``job.detection.ragged``. A list of many small arrays would take ten times as
            long to send to a decoding process.
        sizes: int64 ``[n, 2]``, height and width of each image; 0 if they are unknown.
        empty: number of objects that were dropped, because their box has no width or no height.
    """

    arrays: Arrays
    sizes: Ints
    empty: int = 0

    @classmethod
    def of(
        cls,
        objects: Sequence[Annotations],
        sizes: Sequence[Size | None] | None = None,
        empty: int = 0,
    ) -> "ObjectTable":
        """Return the table of the objects of each image.

        Args:
            objects: the objects of each image.
            sizes: height and width of each image, as far as they are known.
            empty: number of objects that were dropped.
        """
        known = [size or (0, 0) for size in sizes or [None] * len(objects)]
        shape = (len(objects), 2)
        return cls(arrays_of_objects(objects), np.array(known, np.int64).reshape(shape), empty)

    def __len__(self) -> int:
        return len(self.arrays[COUNTS])

    def __getitem__(self, index: int) -> Annotations:
        """Return the objects of one image."""
        rows = slice(int(self._ends[index] - self.arrays[COUNTS][index]), int(self._ends[index]))
        (objects,) = objects_of(
            {
                COUNTS: self.arrays[COUNTS][index : index + 1],
                **{name: each[rows] for name, each in self.arrays.items() if name != COUNTS},
            }
        )
        return objects

    def __getstate__(self) -> dict[str, Any]:
        return {"arrays": self.arrays, "sizes": self.sizes, "empty": self.empty}

    @cached_property
    def _ends(self) -> Ints:
        return np.cumsum(self.arrays[COUNTS])


def checked(image: Image, table: ObjectTable, index: int, name: str) -> tuple[Image, Annotations]:
    """Return an image and its objects, whose boxes must be inside the image.

    Args:
        image: the image.
        table: the objects of all images.
        index: the image's place in the table.
        name: the image's name in messages.

    Raises:
        UnreadableImageError: the annotations are for an image of another size.
        DataError: a box is outside the image.
    """
    height, width = image.shape[:2]
    objects, (known_height, known_width) = table[index], map(int, table.sizes[index])
    if known_height and (known_height, known_width) != (height, width):
        swapped = (known_height, known_width) == (width, height)
        raise UnreadableImageError(
            f"the image has {width}x{height} pixels, but its annotations are for "
            f"{known_width}x{known_height} pixels"
            + (" (the EXIF orientation of an image is ignored)" if swapped else "")
        )
    for box in objects.boxes:
        corners = tuple(map(float, box))
        check_inside(corners, (height, width), name, corners)
    return image, objects


@dataclass(frozen=True, eq=False, kw_only=True)
class ObjectFiles(ImageFiles):
    """Image files with objects; each label is 0.

    Attributes:
        objects: the objects of each image, in pixels of the image.
    """

    objects: ObjectTable

    def read_labelled(self, index: int) -> tuple[Image, Annotations]:
        """See ``LabelledSource``."""
        return checked(self.read(index), self.objects, index, self.names[index])
