"""What a list of Pascal VOC refers to; see ``job.data.voc_set``."""

import posixpath
from collections.abc import Sequence

from job.detection import voc

_IMAGES, _ANNOTATIONS, _SETS = "JPEGImages", "Annotations", "ImageSets"


def listed_files(names: Sequence[str], named: str) -> tuple[set[str], set[str]]:
    """Return the folders and the single files that a list refers to.

    Args:
        names: the lines of the list, see ``voc.image_set``.
        named: the list's name, relative to the data set.
    """
    if pairs := pairs_of(names):
        return set(), {posixpath.normpath(name) for pair in pairs for name in pair}
    return set(folders_of(named)), set()


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the paths of each image and of its annotations; empty if the lines are names."""
    pairs = [pair for line in names if (pair := voc.pair_of(line))]
    return pairs if len(pairs) == len(names) else []


def folders_of(name: str) -> tuple[str, str]:
    """Return the folders of images and annotations, such as VOC2007/JPEGImages."""
    parts = name.split("/")
    base = "/".join(parts[: parts.index(_SETS)]) if _SETS in parts[:-1] else ""
    return posixpath.join(base, _IMAGES), posixpath.join(base, _ANNOTATIONS)
