"""The class names of a data set with objects, given or collected from its files."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from job.detection.annotations import Annotations, Ints
from job.errors import DataError
from job.text_format import plural

_SHOWN = 5


class CollectedClasses(dict[str, int]):
    """Number of each class by name; an unknown name gets the next number.

    Attributes:
        first: the file in which each name was found first.
        file: the file that is being read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}
        self.file = ""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, name: str) -> int:
        self.first[name] = self.file
        self[name] = len(self)
        return self[name]

    def renumbered(self) -> Ints:
        """Return for each number the place of its name in alphabetical order, int64 ``[n]``."""
        places = {name: place for place, name in enumerate(sorted(self))}
        return np.array([places[name] for name in self], np.int64)


def check_class_count(
    found: CollectedClasses, objects: Sequence[Annotations], classes: int, where: str
) -> None:
    """Check that as many names as ``classes`` were found.

    Raises:
        DataError: the number differs. The message names the rarest classes, and a file of each.
    """
    if len(found) == classes:
        return
    counts = Counter[int]()
    for each in objects:
        counts.update(each.classes.tolist())
    rarest = sorted(found, key=lambda name: (counts[found[name]], name))[:_SHOWN]
    shown = "; ".join(
        f"{name!r} ({plural(counts[found[name]], 'object')}, first in {found.first[name]})"
        for name in rarest
    )
    more = "; ..." if len(found) > _SHOWN else ""
    raise DataError(
        f"{where}: expected objects of model.classes = {classes} classes, found {len(found)}: "
        f"{shown or 'no object'}{more}",
        "Correct model.classes, or list the names in detection.class_names.",
    )
