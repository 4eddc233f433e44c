"""The splits of a data set in the format of Pascal VOC.

An image set such as ``VOC2007/ImageSets/Main/trainval.txt`` gives names. Their images are in
``VOC2007/JPEGImages`` and their annotations in ``VOC2007/Annotations``. A list in another folder
refers to these folders in the folder of the data set. A list may also have both paths in each line,
as PaddleDetection's lists: ``VOC2007/JPEGImages/000005.jpg VOC2007/Annotations/000005.xml``.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from job.data.class_table import CollectedClasses, check_class_count
from job.data.data_files import DataFiles, list_file
from job.data.list_file import path_problem
from job.data.objects import ObjectTable
from job.data.sources import Source
from job.data.voc_lists import folders_of, pairs_of
from job.detection import voc
from job.detection.annotations import Annotations
from job.detection.boxes import Size
from job.errors import DataError

_SUFFIX = ".jpg"


@dataclass(frozen=True)
class Pair:
    """Names of an image and of its annotations."""

    image: str
    annotation: str


def voc_sources(
    files: DataFiles,
    lists: Mapping[str, tuple[str, Path | None]],
    *,
    classes: int,
    class_names: Sequence[str] | None,
    channels: int,
) -> dict[str, Source]:
    """Return the images of each split, with their objects.

    Args:
        files: the data set.
        lists: split -> name of its list, and the local file of a list outside the data set.
        classes: the number of classes.
        class_names: names of the classes; None: the names of all objects, alphabetically.
        channels: 1 (gray) or 3 (RGB).

    Raises:
        DataError: a list or an annotation is missing or malformed, a class is unknown, or the
            number of classes differs.
    """
    pairs = {split: _pairs(files, *given) for split, given in lists.items()}
    collected = CollectedClasses()
    numbers = None if class_names is None else {name: n for n, name in enumerate(class_names)}
    found = {split: _objects(files, each, numbers, collected) for split, each in pairs.items()}
    names = class_names
    if names is None:
        every = [objects for read, *_ in found.values() for objects in read]
        check_class_count(collected, every, classes, files.where)
        order = collected.renumbered()
        names = sorted(collected)
        found = {
            split: ([replace(each, classes=order[each.classes]) for each in read], sizes, empty)
            for split, (read, sizes, empty) in found.items()
        }
    return {
        split: files.source(
            [pair.image for pair in pairs[split]], channels, ObjectTable.of(*found[split]), names
        )
        for split in lists
    }


def _pairs(files: DataFiles, name: str, local: Path | None) -> list[Pair]:
    with list_file(files, name, local) as file:
        names = voc.image_set(file, name)
    if pairs := pairs_of(names):
        return [_checked(Pair(*pair), name, files.where) for pair in pairs]
    folder, annotations = folders_of(name)
    images: dict[str, str] = {}
    wanted = {f"{folder}/{stem}" for stem in names}
    for image in files.images(folder):
        stem = posixpath.splitext(image)[0]
        if stem in images and stem in wanted:
            raise DataError(
                f"{files.where}: {images[stem]} and {image} have the same name in {name}",
                "Remove one of the two images, or write the paths of images and annotations.",
            )
        images[stem] = image
    # A missing image is reported when it is read, as for other formats.
    return [
        Pair(
            images.get(f"{folder}/{stem}", f"{folder}/{stem}{_SUFFIX}"),
            posixpath.join(annotations, f"{stem}.xml"),
        )
        for stem in names
    ]


def _checked(pair: Pair, named: str, where: str) -> Pair:
    for name in (pair.image, pair.annotation):
        if problem := path_problem(name):
            raise DataError(f"{named}: {name!r} {problem} {where}")
    return Pair(posixpath.normpath(pair.image), posixpath.normpath(pair.annotation))


def _objects(
    files: DataFiles,
    pairs: Sequence[Pair],
    numbers: Mapping[str, int] | None,
    collected: CollectedClasses,
) -> tuple[list[Annotations], list[Size | None], int]:
    """Return the objects and the size of each image, and the number of empty boxes."""
    names = [pair.annotation for pair in pairs]
    objects: list[Annotations] = []
    sizes: list[Size | None] = []
    empty = 0
    for name, file in zip(names, files.read(names), strict=True):
        collected.file = name
        image = voc.read(file, name, collected if numbers is None else numbers)
        objects.append(image.annotations)
        sizes.append(image.size)
        empty += image.empty
    return objects, sizes, empty
