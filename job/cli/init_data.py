"""Finds the format of a data set in a folder or tar file, for ``job init``."""

import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from job.data.archive_reading import is_archive
from job.data.class_table import CollectedClasses
from job.data.decode import EXTENSIONS
from job.data.list_file import list_entries
from job.data.system_folders import system_part
from job.detection import voc
from job.errors import DataError, UsageError
from job.uri import is_uri, parse

_TRAIN = ("train", "training")
_TEST = ("val", "valid", "validation", "test")
_LISTS = {"train_list": ("train_list.txt", "train.txt"), "val_list": ("val_list.txt", "val.txt")}
# Names of image sets, the preferred one first.
_VOC_TRAIN, _VOC_TEST = ("trainval", "train"), ("test", "val")
_MOST_CLASSES = 1_000_000
_EXPECTED = (
    "Name a folder with one subfolder per class, a folder with train/ and val/ that contain such "
    "subfolders, or a folder with the lists train_list.txt and val_list.txt (`path label` lines)."
)


@dataclass(frozen=True)
class FoundData:
    """A data set.

    Attributes:
        keys: the keys of the manifest's section ``data``, without ``root``.
        classes: the number of classes.
        images: the number of images.
        class_names: names of the classes of objects; empty for a classification data set.
    """

    keys: Mapping[str, str]
    classes: int
    images: int
    class_names: tuple[str, ...] = ()


def find_data(text: str) -> FoundData:
    """Find the format, classes and images of a data set.

    Args:
        text: the folder, tar file or S3 URI, as on the command line.

    Raises:
        UsageError: the data is a Pascal VOC data set in S3.
        DataError: the folder is missing or contains no data set.
    """
    if is_uri(text):
        return _in_s3(text)
    path = Path(text)
    if not path.exists():
        raise DataError(f"--data {text}: no such file or folder", "Correct the path.")
    if path.is_dir() and (found := _lists(path)):
        return found
    return _of_names(text, _names_in_folder(path) if path.is_dir() else _names_in_archive(path))


def _in_s3(text: str) -> FoundData:
    # boto3 takes half a second to import.
    from job.cli.init_s3 import lists_in_s3, names_in_s3

    uri = parse(text)
    names = [name for name in names_in_s3(uri) if not system_part(name)]
    lists = [name for accepted in _LISTS.values() for name in accepted if name in names]
    with lists_in_s3(uri, lists) as folder:
        return _lists(folder) or _of_names(text, names)


def _of_names(text: str, names: Sequence[str]) -> FoundData:
    """Return the data set that files with these names form."""
    if any("Annotations" in name.split("/") for name in names):
        if is_uri(text):
            raise UsageError(
                f"--data {text}: a Pascal VOC data set in S3 cannot be inspected",
                "Name a copy on this machine, and set /data/root of the manifest to the URI.",
            )
        return _voc(Path(text), names)
    images = [name for name in names if posixpath.splitext(name)[1].lower() in EXTENSIONS]
    if not images:
        raise DataError(f"--data {text}: found no images", _EXPECTED)
    return _class_folders(text, images)


def _names_in_folder(path: Path) -> list[str]:
    names = []
    for parent, folders, files in os.walk(path, followlinks=True):
        relative = os.path.relpath(parent, path)
        folders[:] = [name for name in folders if not system_part(name)]
        names += [posixpath.normpath(f"{relative}/{name}") for name in files if name[:1] != "."]
    return names


def _names_in_archive(path: Path) -> list[str]:
    if not is_archive(path.name):
        raise DataError(f"--data {path}: expected a folder or a tar file", _EXPECTED)
    try:
        with tarfile.open(path) as archive:
            names = [posixpath.normpath(each.name) for each in archive if each.isfile()]
    except tarfile.TarError as error:
        raise DataError(
            f"--data {path}: cannot be read as a tar file: {error}",
            "Unpack the archive, and name the folder.",
        ) from error
    return [name for name in names if not system_part(name)]


def _class_folders(text: str, images: Sequence[str]) -> FoundData:
    top = posixpath.commonpath([posixpath.dirname(name) for name in images])
    below = [posixpath.relpath(name, top or ".").split("/") for name in images]
    if len({parts[0] for parts in below}) < 2 or any(len(parts) < 2 for parts in below):
        raise DataError(
            f"--data {text}: found {len(images):,} images, but not at least two class folders",
            _EXPECTED,
        )
    firsts = {parts[0] for parts in below}
    by_split = {
        key: [name for name in accepted if name in firsts][:1]
        for key, accepted in {"train_dir": _TRAIN, "val_dir": _TEST}.items()
    }
    if not by_split["train_dir"]:
        return FoundData(
            {"format": "class_folders", "train_dir": top or "."}, len(firsts), len(images)
        )
    keys = {key: posixpath.join(top, *names) for key, names in by_split.items() if names}
    (train,) = by_split["train_dir"]
    classes = {parts[1] for parts in below if parts[0] == train and len(parts) > 2}
    if len(classes) < 2:
        raise DataError(f"--data {text}: {train} has {len(classes)} class folders", _EXPECTED)
    return FoundData({"format": "class_folders", **keys}, len(classes), len(images))


def _voc(path: Path, names: Sequence[str]) -> FoundData:
    """Return a data set in the format of Pascal VOC."""
    sets = {
        key: found
        for key, accepted in {"train_list": _VOC_TRAIN, "val_list": _VOC_TEST}.items()
        if (found := next((n for end in accepted for n in names if _is_set(n, end)), ""))
    }
    if not sets:
        raise DataError(
            f"--data {path}: found the folder Annotations, but no image sets",
            "Add ImageSets/Main/trainval.txt and test.txt with one image name per line, or write "
            "the manifest for another format yourself (docs/detection.md).",
        )
    collected, images = CollectedClasses(), 0
    for name, file in _annotations(path, names):
        collected.file = name
        voc.read(file, name, collected)
        images += 1
    class_names = tuple(sorted(collected))
    if not class_names:
        raise DataError(f"--data {path}: the annotations have no object", "Add objects.")
    return FoundData({"format": "voc", **sets}, len(class_names), images, class_names)


def _is_set(name: str, end: str) -> bool:
    return f"/{name}".endswith(f"/ImageSets/Main/{end}.txt")


def _annotations(path: Path, names: Sequence[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Yield name and content of each XML file in a folder Annotations."""
    wanted = {n for n in names if "Annotations" in n.split("/") and n.lower().endswith(".xml")}
    if path.is_dir():
        for name in sorted(wanted):
            with (path / name).open("rb") as file:
                yield name, file
        return
    with tarfile.open(path) as archive:
        for member in archive:
            name = posixpath.normpath(member.name)
            content = archive.extractfile(member) if name in wanted else None
            if content is not None:
                yield name, cast(BinaryIO, content)


def _lists(path: Path) -> FoundData | None:
    found = {
        key: next((name for name in names if (path / name).is_file()), "")
        for key, names in _LISTS.items()
    }
    keys = {key: name for key, name in found.items() if name}
    if not keys:
        return None
    labels = [
        label
        for name in keys.values()
        for _, label in list_entries(path / name, name, str(path), _MOST_CLASSES)
    ]
    return FoundData({"format": "imagenet_list", **keys}, max(labels) + 1, len(labels))
