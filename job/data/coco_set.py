"""The splits of a data set in the format of COCO: a JSON file and a folder of images each."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from job.data.data_files import DataFiles, list_file
from job.data.objects import ObjectTable
from job.data.sources import Source
from job.detection import coco
from job.errors import DataError
from job.text_format import shortened


@dataclass(frozen=True)
class CocoSplit:
    """A split in the manifest.

    Attributes:
        file: name of the JSON file.
        local: the file itself, if it is outside the data set.
        folder: the folder that ``file_name`` is relative to.
    """

    file: str
    local: Path | None
    folder: str


def coco_sources(
    files: DataFiles,
    splits: Mapping[str, CocoSplit],
    *,
    classes: int,
    class_names: Sequence[str] | None,
    channels: int,
) -> dict[str, Source]:
    """Return the images of each split, with their objects.

    Args:
        files: the data set.
        splits: split -> its files.
        classes: the number of classes.
        class_names: names of the classes; None: the categories by ascending id.
        channels: 1 (gray) or 3 (RGB).

    Raises:
        DataError: a file is missing or malformed, or its categories are not the classes.
    """
    sources: dict[str, Source] = {}
    names = class_names
    for split, given in splits.items():
        with list_file(files, given.file, given.local) as file:
            content = coco.read(file, given.file)
        names = names or content.classes
        order = _order(content.classes, names, classes, given.file)
        objects = [
            replace(image.annotations, classes=order[image.annotations.classes])
            for image in content.images
        ]
        images = [
            posixpath.normpath(posixpath.join(given.folder, image.name)) for image in content.images
        ]
        sizes = [image.size for image in content.images]
        table = ObjectTable.of(objects, sizes, content.empty)
        sources[split] = files.source(images, channels, table, names)
    return sources


def _order(
    found: Sequence[str], names: Sequence[str], classes: int, named: str
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the number of each category's class, by the number of the category."""
    if len(found) != classes:
        raise DataError(
            f"{named}: expected {classes} categories (model.classes), found {len(found)}: "
            f"{shortened(list(found))}",
            "Correct model.classes, or remove categories from the file.",
        )
    if set(found) != set(names):
        raise DataError(
            f"{named}: expected the categories {shortened(list(names))}, found "
            f"{shortened(list(found))}",
            "Use the same categories in all files of the data set, and list their names in "
            "detection.class_names.",
        )
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[name] for name in found], np.int64)
