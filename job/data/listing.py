"""Find the images of a data set: lists of paths with labels, or folders of class folders."""

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from job.data.decode import COLOUR_MODES, EXTENSIONS
from job.data.sources import ImageFiles
from job.errors import DataError
from job.storage.files import open_regular

CLASS_COUNT = "Set model.classes to the number of classes, or add or remove folders."
EMPTY_CLASS = "Add images, or remove the folder and lower model.classes."
_LINKED = (
    "Replace the link by the file, or remove the link (also if its target is missing). Only class "
    "folders may be links to paths outside the data set."
)
_SHOWN_NAMES = 5
# Paths have at most 4,096 bytes.
_LONGEST_LINE = 1 << 16
_LABEL = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class DataRoot:
    """The folder of a data set.

    Attributes:
        folder: the folder with its files.
        where: the folder, or the archive it was unpacked from, as in the manifest; for messages.
    """

    folder: Path
    where: str


def image_list(place: DataRoot, list_file: str, *, classes: int, channels: int) -> ImageFiles:
    """Read a list of ``path label`` lines; paths are relative to the folder of the data set.

    The images are not opened. A missing image is reported when it is read.

    Args:
        place: the folder of the data set.
        list_file: the list, relative to the folder.
        classes: the number of classes; every label is less.
        channels: 1 (gray) or 3 (RGB).

    Raises:
        DataError: the list is missing, empty or malformed, a label is outside 0 to classes - 1, or
            a path is outside the data set. The message names the list and the line.
    """
    names: list[str] = []
    labels: list[int] = []
    escapes = _LinkCheck(place.folder)
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


def list_entries(path: Path, named: str, root: str, classes: int) -> Iterator[tuple[str, int]]:
    """Yield name and label of each line of a list; a name never has ``..`` or a double slash.

    Args:
        path: the list.
        named: the list's name in messages.
        root: the folder of the data set, for messages.
        classes: the number of classes; every label is less.

    Raises:
        DataError: the list is missing, empty or malformed, or a name is outside the data set.
    """
    count = 0
    for where, line in _lines(path, named):
        name, label = _entry(line, where, classes)
        problem = path_problem(name)
        if problem:
            raise DataError(f"{where}: {name!r} {problem} {root}")
        count += 1
        yield posixpath.normpath(name), label
    if count == 0:
        raise DataError(
            f"{named}: the list is empty",
            "Write one image and its label per line, such as `val/n01440764_tench.JPEG 0`.",
        )


def _lines(path: Path, named: str) -> Iterator[tuple[str, str]]:
    try:
        with open_regular(path) as file:
            for number, line in enumerate(
                iter(partial(file.readline, _LONGEST_LINE), b""), start=1
            ):
                yield from _line(line, f"{named}:{number}", first=number == 1)
    except OSError as error:
        raise DataError(
            f"cannot read list {named}: {error.strerror}", _content_of(path.parent)
        ) from error


def _line(line: bytes, where: str, *, first: bool) -> Iterator[tuple[str, str]]:
    if len(line) == _LONGEST_LINE:
        raise DataError(
            f"{where}: the line has more than {len(line):,} bytes", "Check that the file is a list."
        )
    try:
        text = (line.removeprefix(b"\xef\xbb\xbf") if first else line).decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: the line is not UTF-8 text", "Check that the file is a list."
        ) from error
    if text:
        yield where, text


def _entry(line: str, where: str, classes: int) -> tuple[str, int]:
    parts = line.rsplit(maxsplit=1)
    if len(parts) != 2 or not _LABEL.fullmatch(parts[1]):
        raise DataError(
            f"{where}: expected `path label` with a whole number as label, found {line[:120]!r}"
        )
    label = int(parts[1])
    if not 0 <= label < classes:
        raise DataError(
            f"{where}: label {label} is outside 0 to {classes - 1}",
            "Set model.classes to more than the highest label; labels start at 0.",
        )
    return parts[0], label


def path_problem(name: str) -> str:
    """Return why a name is not inside a folder, as text before the folder's name; or empty."""
    if posixpath.isabs(name):
        return "is an absolute path; expected a path inside"
    if "\0" in name:
        return "contains a NUL byte; expected a path inside"
    if ".." in name.split("/"):
        return "contains `..`; expected a path inside"
    return ""


class _LinkCheck:
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

    Files with other extensions and hidden files are skipped and counted.

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
    class_names = _class_names(place, folder)
    if len(class_names) != classes:
        raise DataError(
            f"{folder} in {place.where}: expected {classes} class folders (model.classes), found "
            f"{len(class_names)} ({_shortened(class_names)})",
            CLASS_COUNT,
        )
    escapes = _LinkCheck(place.folder)
    names: list[str] = []
    labels: list[int] = []
    ignored = 0
    for label, class_name in enumerate(class_names):
        images, skipped = _images_below(place, top / class_name, escapes)
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
    )
    return source, class_names


def _class_names(place: DataRoot, folder: str) -> list[str]:
    top = place.folder / folder
    try:
        with os.scandir(top) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
            )
    except OSError as error:
        raise DataError(
            f"cannot list folder {folder!r} in {place.where}: {error.strerror}",
            _content_of(top.parent),
        ) from error


def _images_below(place: DataRoot, folder: Path, escapes: _LinkCheck) -> tuple[list[str], int]:
    images: list[str] = []
    skipped = 0
    for parent, subfolders, files in os.walk(folder):
        relative = os.path.relpath(parent, place.folder)
        for subfolder in subfolders:
            # os.walk does not follow links, so these images would be missing without a message.
            if Path(parent, subfolder).is_symlink():
                raise DataError(
                    f"{relative}/{subfolder} in {place.where} is a symbolic link to a folder; only "
                    "class folders themselves may be links",
                    "Replace the link by the folder, or remove it.",
                )
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
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


def _content_of(folder: Path) -> str:
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return f"The folder {folder} is also missing."
    return f"{folder} contains {_shortened(names)}." if names else f"{folder} is empty."


def _shortened(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
