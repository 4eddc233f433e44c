"""Finds the format of a data set in a folder or archive, for ``job init``."""

import posixpath
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from job.cli.found_data import FoundData
from job.cli.init_names import contents, names_of
from job.cli.init_objects import coco_files, coco_objects, is_voc, voc_objects
from job.data.decode import EXTENSIONS
from job.data.list_file import list_entries
from job.data.system_folders import is_system_folder, system_part
from job.errors import DataError, UsageError
from job.text_format import plural, shortened
from job.uri import is_uri, parse

# Names of the folders of a split in lower case, the preferred one first.
_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_LISTS = {"train_list": ("train_list.txt", "train.txt"), "val_list": ("val_list.txt", "val.txt")}
_MOST_CLASSES = 1_000_000
_EXPECTED = (
    "Give a folder with one subfolder per class, a folder with train/ and val/ that contain such "
    "subfolders, a folder with the lists train_list.txt and val_list.txt (`path label` lines), or "
    "a data set of Pascal VOC (Annotations/, ImageSets/Main/) or COCO (annotations/*.json)."
)


def find_data(text: str) -> FoundData:
    """Find the format, classes and images of a data set.

    Args:
        text: the folder, archive or S3 URI, as on the command line.

    Raises:
        UsageError: the data set has objects and is in S3.
        DataError: the folder is missing or contains no data set.
    """
    if is_uri(text):
        return _in_s3(text)
    path = Path(text)
    if not path.exists():
        raise DataError(f"--data {text}: no such file or folder", "Correct the path.")
    if path.is_dir():
        found = _lists(path) or _of_names(text, names_of(path))
        _check_not_empty(path, found)
        return found
    names = names_of(path)
    return _lists_in_archive(path, names) or _of_names(text, names)


def _check_not_empty(path: Path, found: FoundData) -> None:
    """Check that each class folder has an image; the names of images do not show an empty folder.

    Raises:
        DataError: a class folder has no image.
    """
    for name in [name for key, name in found.keys.items() if found.folders and key != "format"]:
        folders = {each.name for each in (path / name).iterdir() if each.is_dir()}
        empty = sorted(each for each in folders - set(found.folders) if not is_system_folder(each))
        if empty:
            raise DataError(
                f"--data {path}: class folders without an image in {name}: {shortened(empty)}",
                "Add images, or remove the folders.",
            )


def _lists_in_archive(path: Path, names: Sequence[str]) -> FoundData | None:
    lists = set(names) & set(chain.from_iterable(_LISTS.values()))
    with TemporaryDirectory(prefix="job-") as folder:
        for name, file in contents(path, lists) if lists else ():
            (Path(folder) / name).write_bytes(file.read())
        return _lists(Path(folder))


def _in_s3(text: str) -> FoundData:
    # boto3 takes half a second to import.
    from job.cli.init_s3 import lists_in_s3, names_in_s3

    uri = parse(text)
    names = [name for name in names_in_s3(uri) if not system_part(name)]
    lists = sorted(set(names) & set(chain.from_iterable(_LISTS.values())))
    with lists_in_s3(uri, lists) as folder:
        return _lists(folder) or _of_names(text, names)


def _of_names(text: str, names: Sequence[str]) -> FoundData:
    """Return the data set that files with these names form."""
    kind = "Pascal VOC" if is_voc(names) else "COCO" if coco_files(names) else ""
    if kind and is_uri(text):
        raise UsageError(
            f"--data {text}: a {kind} data set in S3 cannot be inspected",
            "Give a copy on this machine, then set /data/root of the manifest to the URI.",
        )
    if kind:
        path = Path(text)
        voc = kind == "Pascal VOC"
        return voc_objects(path, names) if voc else coco_objects(path, names, coco_files(names))
    images = [name for name in names if posixpath.splitext(name)[1].lower() in EXTENSIONS]
    if not images:
        raise DataError(f"--data {text}: found no images", _EXPECTED)
    return _class_folders(text, images)


def _class_folders(text: str, images: Sequence[str]) -> FoundData:
    top = posixpath.commonpath([posixpath.dirname(name) for name in images])
    below = [posixpath.relpath(name, top or ".").split("/") for name in images]
    stray = [parts[0] for parts in below if len(parts) < 2]
    firsts = {parts[0] for parts in below if len(parts) > 1}
    if not firsts:
        raise DataError(
            f"--data {text}: found {plural(len(images), 'image')} in one folder ({top or '.'!r}), "
            "expected at least two class folders",
            _EXPECTED,
        )
    if len(firsts) < 2 or stray:
        outside = f", and images outside class folders: {shortened(stray)}" if stray else ""
        raise DataError(
            f"--data {text}: expected at least 2 class folders, and no image outside class "
            f"folders; found {plural(len(images), 'image')} in "
            f"{plural(len(firsts), 'class folder')}{outside}",
            _EXPECTED,
        )
    # A folder that contains images directly is a class, whatever its name.
    direct = {parts[0]: parts[1] for parts in below if len(parts) == 2}
    splits = _splits(firsts - set(direct))
    if "train_dir" not in splits:
        _check_not_only_splits(text, firsts, direct)
        keys = {"format": "class_folders", "train_dir": top or "."}
        return _found(keys, firsts, len(images))
    classes = {
        key: {parts[1] for parts in below if parts[0] == name} for key, name in splits.items()
    }
    _check_same_classes(text, splits, classes)
    keys = {key: posixpath.join(top, name) for key, name in splits.items()}
    count = sum(parts[0] in splits.values() for parts in below)
    return _found({"format": "class_folders", **keys}, classes["train_dir"], count)


def _found(keys: Mapping[str, str], folders: set[str], images: int) -> FoundData:
    return FoundData(keys, len(folders), images, folders=tuple(sorted(folders)))


def _splits(folders: set[str]) -> dict[str, str]:
    """Return the folder of each split by its key in the manifest."""
    by_lower = {name.lower(): name for name in folders}
    found = {
        role: by_lower[name]
        for role, accepted in _FOLDERS.items()
        for name in reversed(accepted)
        if name in by_lower
    }
    both = "val" in found and "test" in found
    keys = {"train": "train_dir", "val": "selection_dir" if both else "val_dir", "test": "val_dir"}
    return {keys[role]: name for role, name in found.items()}


def _check_not_only_splits(text: str, firsts: set[str], direct: Mapping[str, str]) -> None:
    """Check that folders without a split for training are classes, and no splits.

    Raises:
        DataError: the folders have the names of splits. The message names an image that is in no
            class folder.
    """
    roles = {name for accepted in _FOLDERS.values() for name in accepted}
    if not {name.lower() for name in firsts} <= roles:
        return
    shown = [f"{folder}/{image}" for folder, image in sorted(direct.items())]
    reason = f"images outside class folders: {shortened(shown)}" if shown else "no folder train/"
    raise DataError(f"--data {text}: found {', '.join(sorted(firsts))}, but {reason}", _EXPECTED)


def _check_same_classes(
    text: str, splits: Mapping[str, str], classes: Mapping[str, set[str]]
) -> None:
    """Check that a split for training has several classes, and the others the same.

    Raises:
        DataError: a split has another class, or the split for training has one class.
    """
    train = classes["train_dir"]
    if len(train) < 2:
        raise DataError(f"--data {text}: {splits['train_dir']} has one class folder", _EXPECTED)
    for key, name in splits.items():
        if other := sorted(train ^ classes[key]):
            raise DataError(
                f"--data {text}: {splits['train_dir']} and {name} must have the same class "
                f"folders, but only one of them has {shortened(other)}",
                "Add or remove class folders.",
            )


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
