"""Class names of image lists, from the folders of the images."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any


def label_names(sources: Sequence[Any], classes: int) -> tuple[str, ...]:
    """Return the name of the folder that contains the images of each class, by label.

    Args:
        sources: image sources. A source whose names contain no folder, such as a packed file, makes
            the result empty.
        classes: number of classes.

    Returns:
        The names. Empty if the images of a class are in several folders, if a folder has images of
        several classes, or if a class has no image.
    """
    folders: dict[int, str] = {}
    for source in sources:
        listed = zip(getattr(source, "names", ()), source.labels, strict=False)
        for path, label in dict.fromkeys((name.rpartition("/")[0], int(n)) for name, n in listed):
            name = PurePosixPath(path).name
            if not name or folders.setdefault(label, name) != name:
                return ()
    names = tuple(folders[label] for label in range(classes) if label in folders)
    return names if len(names) == classes == len(set(names)) else ()
