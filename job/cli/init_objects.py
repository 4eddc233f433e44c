"""Finds the splits and the classes of a data set with objects, for ``job init``."""

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from job.cli.found_data import FoundData
from job.cli.init_names import contents
from job.data.class_table import CollectedClasses
from job.detection import coco, voc
from job.errors import DataError

# Names of image sets of Pascal VOC, the preferred one first.
_SETS = "ImageSets/Main/"
_VOC_TRAIN, _VOC_TEST = ("trainval", "train"), ("test", "val")
_ROLES = ("train", "val", "test")
# COCO's other files have captions, key points, or images without annotations.
_COCO_OTHER = re.compile("caption|keypoint|panoptic|stuff|image_info")


def is_voc(names: Sequence[str]) -> bool:
    """Return whether files with these names form a data set of Pascal VOC."""
    return any("Annotations" in name.split("/") for name in names)


def coco_files(names: Sequence[str]) -> list[str]:
    """Return the JSON files with the boxes of a COCO data set."""
    return [name for name in names if name.lower().endswith(".json") and _has_boxes(name.lower())]


def _has_boxes(name: str) -> bool:
    folder, base = posixpath.split(name)
    known = posixpath.basename(folder) == "annotations" or "coco" in base
    return (known or base.startswith("instances")) and not _COCO_OTHER.search(base)


def voc_objects(path: Path, names: Sequence[str]) -> FoundData:
    """Return the splits and the classes of a data set of Pascal VOC.

    Of several years, such as VOC2007 and VOC2012, the one with most splits is used.

    Raises:
        DataError: image sets or objects are missing, or an annotation file is malformed.
    """
    years = {name.partition(_SETS)[0] for name in names if _SETS in name}
    by_year = {year: _sets(names, year) for year in sorted(years)}
    year = max(by_year, key=lambda year: len(by_year[year]), default="")
    sets = by_year.get(year)
    if not sets:
        raise DataError(
            f"--data {path}: found the folder Annotations, but no image sets",
            "Add ImageSets/Main/trainval.txt and test.txt with one image name per line, or write "
            "the manifest for another format yourself (docs/detection.md).",
        )
    below = [name for name in names if name.startswith(f"{year}Annotations/")]
    annotations = {name for name in below if name.lower().endswith(".xml")}
    collected = CollectedClasses()
    for name, file in contents(path, annotations):
        collected.file = name
        voc.read(file, name, collected)
    if not collected:
        raise DataError(f"--data {path}: the annotations have no object", "Add objects.")
    unused = [name for other in by_year if other != year for name in by_year[other].values()]
    keys = {"format": "voc", **sets}
    classes = tuple(sorted(collected))
    return FoundData(
        keys, len(classes), len(annotations), class_names=classes, unused=tuple(unused)
    )


def _sets(names: Sequence[str], year: str) -> dict[str, str]:
    """Return the image sets of a year by their keys in the manifest."""
    accepted = {"train_list": _VOC_TRAIN, "val_list": _VOC_TEST}
    files = {key: [f"{year}{_SETS}{end}.txt" for end in ends] for key, ends in accepted.items()}
    found = {key: [name for name in each if name in names] for key, each in files.items()}
    return {key: each[0] for key, each in found.items() if each}


def coco_objects(path: Path, names: Sequence[str], files: Sequence[str]) -> FoundData:
    """Return the splits and the classes of a data set in the format of COCO.

    Args:
        path: the folder or archive.
        names: all its files.
        files: its JSON files with boxes.

    Raises:
        DataError: a JSON file is malformed, or its images are missing.
    """
    lists = _coco_splits(path, files)
    keys = {"format": "coco"}
    found: dict[str, coco.CocoSet] = {}
    for name, file in contents(path, set(lists.values())):
        found[name] = coco.read(file, name)
    for key, name in lists.items():
        keys[key] = name
        if folder := _image_folder(path, names, name, found[name]):
            keys[key.replace("_list", "_dir")] = folder
    classes = found[next(iter(lists.values()))].classes
    images = sum(len(each.images) for each in found.values())
    return FoundData(keys, len(classes), images, class_names=classes)


def _coco_splits(path: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the JSON file of each key of the manifest, by the names of file and folder."""
    by_role: dict[str, str] = {}
    for name in sorted(files):
        tail = "/".join(name.lower().split("/")[-2:])
        if role := next((role for role in _ROLES if role in tail), ""):
            by_role.setdefault(role, name)
    if "train" not in by_role and len(files) == 1:
        return {"train_list": files[0]}
    if "train" not in by_role:
        raise DataError(
            f"--data {path}: found {', '.join(sorted(files)[:5])}, but no file of training images",
            "Put `train` into the file's name, such as annotations/instances_train.json.",
        )
    if "val" in by_role and "test" in by_role:
        keys = {"train": "train_list", "val": "selection_list", "test": "val_list"}
    else:
        keys = {role: "train_list" if role == "train" else "val_list" for role in _ROLES}
    return {keys[role]: by_role[role] for role in _ROLES if role in by_role}


def _image_folder(path: Path, names: Sequence[str], file: str, content: coco.CocoSet) -> str:
    """Return the folder that the image names of a JSON file are relative to; empty for the root.

    Raises:
        DataError: no folder contains the first image.
    """
    if not content.images:
        raise DataError(f"--data {path}: {file} has no image", "Add images.")
    image = posixpath.normpath(content.images[0].name)
    endings = [f"/{name}" for name in names if f"/{name}".endswith(f"/{image}")]
    folders = [name[1 : -len(image) - 1] for name in endings]
    if not folders:
        raise DataError(
            f"--data {path}: {file} names {image}, but no folder contains it", "Add the images."
        )
    return max(folders, key=lambda folder: _likeness(folder, file))


def _likeness(folder: str, file: str) -> tuple[bool, bool, int]:
    """Rank a folder with an image of this name: beside the JSON file, or named after its split."""
    role = next((role for role in _ROLES if role in file.lower()), "")
    beside = folder == posixpath.dirname(file)
    return beside, bool(role) and role in folder.lower(), -len(folder)
