"""The data set that ``job init`` found."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FoundData:
    """A data set.

    Attributes:
        keys: the keys of the manifest's section ``data``, without ``root``.
        classes: the number of classes.
        images: the number of images.
        class_names: names of the classes of objects; empty for a classification data set.
        folders: the class folders in the order of their labels; empty for other data sets.
        unused: lists of images that the manifest does not use.
    """

    keys: Mapping[str, str]
    classes: int
    images: int
    class_names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
