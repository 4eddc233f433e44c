"""Find the images of a data set: lists of paths with labels, or folders of class folders."""

import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.data.decode import COLOUR_MODES, EXTENSIONS
from job.data.list_file import content_of, list_entries, path_problem
from job.data.sources import ImageFiles
from job.data.system_folders import is_system_folder
from job.errors import DataError
from job.text_format import shortened

CLASS_COUNT = "Set model.classes to the number of classes, or add or remove folders."
EMPTY_CLASS = "Add images, or remove the folder and lower model.classes."
_LINKED = (
    "Replace the link by its target, or set /data/root to a folder that contains both. If the "
    "target is missing, remove the link."
)


@dataclass(frozen=True)
class DataRoot:
    """The folder of a data set.

    Attributes:
        folder: the folder with its files.
        where: the folder, or the archive it was unpacked from, as in the manifest; for messages.
    """

    folder: Path
    where: str


def image_list(
    place: DataRoot, list_file: str, *, classes: int | None, channels: int
) -> ImageFiles:
    """Read a list of ``path label`` lines; paths are relative to the folder of the data set.

    The images are not opened. A missing image is reported when it is read.

    Args:
        place: the folder of the data set.
        list_file: the list, relative to the folder.
        classes: the number of classes; every label is less. None: the list has no labels.
        channels: 1 (gray) or 3 (RGB).

    Raises:
        DataError: the list is missing, empty or malformed, a label is outside 0 to classes - 1, or
            a path is outside the data set. The message names the list and the line.
    """
    names: list[str] = []
    labels: list[int] = []
    escapes = LinkCheck(place.folder)
    path = place.folder / list_file
    for name, label in list_entries(path, str(path), place.where, classes):
        problem = escapes.problem(name)
        if problem:
            raise DataError(f"{path}: {name!r} {problem} {place.where}", _LINKED)
        names.append(name)
        labels.append(label)
    return ImageFiles(
        folder=place.folder,
        where=place.where,
        names=tuple(names),
        labels=np.asarray(labels, np.int64),
        channels=checked_channels(channels),
    )


class LinkCheck:
    """Detects paths that leave a folder through a symbolic link.

    Each folder is listed once, which is much faster than resolving a million paths.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = Path(os.path.realpath(folder))
        self._bad: dict[str, frozenset[str] | None] = {}

    def problem(self, name: str) -> str:
        """Return the problem of a path, to be followed by the folder's name; or empty."""
        parent, _, base = name.rpartition("/")
        if parent not in self._bad:
            self._bad[parent] = self._leaving(parent)
        leaving = self._bad[parent]
        if leaving is None or base in leaving:
            return "contains a symbolic link to a path outside"
        return ""

    def _leaving(self, parent: str) -> frozenset[str] | None:
        folder = self._folder / parent
        if not self._inside(folder):
            return None
        return frozenset(link for link in _links(folder) if not self._inside(folder / link))

    def _inside(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(self._real)


def real_paths(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """Yield the real path of each name below a folder, with symbolic links resolved.

    Each folder is resolved and listed once.
    """
    known: dict[str, tuple[str, frozenset[str]]] = {}
    for name in names:
        parent, _, base = name.rpartition("/")
        if parent not in known:
            known[parent] = _resolved(folder / parent)
        real, links = known[parent]
        path = f"{real}/{base}"
        yield os.path.realpath(path) if base in links else path


def _resolved(folder: Path) -> tuple[str, frozenset[str]]:
    """Return the real path of a folder, and the names of its symbolic links."""
    return os.path.realpath(folder), frozenset(_links(folder))


def _links(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_symlink()]
    except OSError:
        # A missing folder is reported when its images are read.
        return []


def class_folders(
    place: DataRoot, folder: str, *, classes: int, channels: int
) -> tuple[ImageFiles, Sequence[str]]:
    """Find the images in a folder of class folders; their sorted names are labels 0, 1, ...

    Files with other extensions, hidden files and files in system folders are skipped and counted.

    Args:
        place: the folder of the data set.
        folder: the folder of class folders, relative to it.
        classes: the expected number of class folders.
        channels: 1 (gray) or 3 (RGB).

    Returns:
        The images, and the class names in the order of the labels.

    Raises:
        DataError: the folder is missing, the number of class folders is not ``classes``, a class
            has no image, or the target of a symbolic link is outside the data set.
    """
    problem = path_problem(folder)
    if problem:
        raise DataError(f"{folder!r} {problem} {place.where}")
    top = place.folder / folder
    class_names, system = _class_names(place, folder)
    if len(class_names) != classes:
        raise DataError(
            f"{folder} in {place.where}: expected {classes} class folders (model.classes), found "
            f"{len(class_names)} ({shortened(class_names)})",
            CLASS_COUNT,
        )
    escapes = LinkCheck(place.folder)
    names: list[str] = []
    labels: list[int] = []
    ignored = 0
    for label, class_name in enumerate(class_names):
        images, skipped = _images_below(place, top / class_name, escapes, system)
        if not images:
            raise DataError(
                f"{folder}/{class_name} in {place.where}: the class has no image", EMPTY_CLASS
            )
        names += images
        labels += [label] * len(images)
        ignored += skipped
    source = ImageFiles(
        folder=place.folder,
        where=place.where,
        names=tuple(names),
        labels=np.asarray(labels, np.int64),
        channels=checked_channels(channels),
        ignored=ignored,
        system_folders=system,
        class_names=tuple(class_names),
    )
    return source, class_names


def _class_names(place: DataRoot, folder: str) -> tuple[list[str], Counter[str]]:
    """Return the class folders, and the number of files in each system folder beside them."""
    top = place.folder / folder
    try:
        with os.scandir(top) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise DataError(
            f"cannot list folder {folder!r} in {place.where}: {error.strerror}",
            content_of(top.parent),
        ) from error
    system = Counter[str]()
    for name in filter(is_system_folder, folders):
        _count_files(top / name, system)
    return [name for name in folders if not is_system_folder(name)], system


def _count_files(folder: Path, system: Counter[str]) -> None:
    """Add the number of files in a system folder."""
    count = sum(len(files) for _, _, files in os.walk(folder))
    if count:
        system[folder.name] += count


def images_below(place: DataRoot, folder: Path, escapes: LinkCheck) -> list[str]:
    """Return the sorted names of the images in a folder and its subfolders.

    Files with other extensions, hidden files and files in system folders are skipped.

    Args:
        place: the folder of the data set; the names are relative to it.
        folder: the folder, inside the folder of the data set.
        escapes: checks the links of the data set.

    Raises:
        DataError: a subfolder is a link, or the target of a link is outside the data set.
    """
    return _images_below(place, folder, escapes, Counter())[0]


def _images_below(
    place: DataRoot, folder: Path, escapes: LinkCheck, system: Counter[str]
) -> tuple[list[str], int]:
    images: list[str] = []
    skipped = 0
    for parent, subfolders, files in os.walk(folder):
        relative = os.path.relpath(parent, place.folder)
        for subfolder in filter(is_system_folder, subfolders):
            _count_files(Path(parent, subfolder), system)
        subfolders[:] = [name for name in subfolders if not is_system_folder(name)]
        for subfolder in subfolders:
            # os.walk does not follow links, so these images would be missing without a message.
            if Path(parent, subfolder).is_symlink():
                raise DataError(
                    f"{relative}/{subfolder} in {place.where} is a symbolic link to a folder; only "
                    "class folders themselves may be links",
                    "Replace the link by the folder, or remove it.",
                )
        for file in files:
            name = posixpath.normpath(f"{relative}/{file}")
            if file.startswith(".") or posixpath.splitext(file)[1].lower() not in EXTENSIONS:
                skipped += 1
                continue
            problem = escapes.problem(name)
            if problem:
                raise DataError(f"{name!r} {problem} {place.where}", _LINKED)
            images.append(name)
    return sorted(images), skipped


def checked_channels(channels: int) -> int:
    """Return the number of channels, if image files can be converted to it.

    Raises:
        DataError: image files cannot be converted to this number of channels.
    """
    if channels not in COLOUR_MODES:
        raise DataError(
            f"model.input_shape has {channels} channels, but image files have 1 (gray) or 3 (RGB)",
            "Set 1 or 3 channels, or use data.format packed.",
        )
    return channels
