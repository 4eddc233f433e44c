"""What a list of Pascal VOC refers to; see ``job.data.voc_set``."""

import posixpath
from collections.abc import Sequence

_IMAGES, _ANNOTATIONS, _SETS = "JPEGImages", "Annotations", "ImageSets"


def listed_files(names: Sequence[str], named: str) -> tuple[set[str], set[str]]:
    """Return the folders and the single files that a list refers to.

    Args:
        names: the lines of the list, see ``voc.image_set``.
        named: the list's name, relative to the data set.
    """
    if are_pairs(names):
        return set(), {posixpath.normpath(name) for line in names for name in line.split()}
    return set(folders_of(named)), set()


def are_pairs(names: Sequence[str]) -> bool:
    """Return whether each line of a list has the paths of an image and of its annotations."""
    return all(line.endswith(".xml") and len(line.split()) == 2 for line in names)


def folders_of(name: str) -> tuple[str, str]:
    """Return the folders of images and annotations, such as VOC2007/JPEGImages."""
    parts = name.split("/")
    base = "/".join(parts[: parts.index(_SETS)]) if _SETS in parts[:-1] else ""
    return posixpath.join(base, _IMAGES), posixpath.join(base, _ANNOTATIONS)
