"""Finding a data set's images: lists of paths with labels, folders of class folders."""

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
EMPTY_CLASS = "Put images there, or remove the folder and lower model.classes."
_LINKED = (
    "Put the file itself there, or remove the link. One that leads nowhere counts as well; only "
    "whole class folders may lie elsewhere."
)
_SHOWN_NAMES = 5
# Paths have at most 4,096 bytes.
_LONGEST_LINE = 1 << 16
_LABEL = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class DataRoot:
    """The data set's folder.

    Attributes:
        folder: where its files lie.
        where: the folder, or the archive that it was unpacked from, as the user knows it.
    """

    folder: Path
    where: str


def image_list(place: DataRoot, list_file: str, *, classes: int, channels: int) -> ImageFiles:
    """Read a list of ``path label`` lines; paths are relative to the data set's folder.

    The images themselves are not opened: a missing one is found when it is read.

    Raises:
        DataError: the list is missing, empty or malformed, a label is outside 0 to classes - 1, a
            path leads out of the data set's folder; names the list and the line.
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
        path: of the list.
        named: how messages call it.
        root: the data set's folder, for messages.
        classes: every label is below.

    Raises:
        DataError: the list is missing, empty or malformed, or a name leads out of the data set.
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
            "Each line names an image and its label: `val/n01440764_tench.JPEG 0`.",
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
            f"{named}: the list cannot be read: {error.strerror}", _holds(path.parent)
        ) from error


def _line(line: bytes, where: str, *, first: bool) -> Iterator[tuple[str, str]]:
    if len(line) == _LONGEST_LINE:
        raise DataError(f"{where}: a line of more than {len(line):,} bytes; is this a list?")
    try:
        text = (line.removeprefix(b"\xef\xbb\xbf") if first else line).decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text; is this a list?") from error
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
            "model.classes must be greater than every label; labels start at 0.",
        )
    return parts[0], label


def path_problem(name: str) -> str:
    """Say how a name leads out of a folder, to be followed by the folder's name; or nothing."""
    if posixpath.isabs(name):
        return "is an absolute path; expected one inside"
    if "\0" in name:
        return "has a NUL byte in it; expected a path inside"
    if ".." in name.split("/"):
        return "has `..` in it; expected a path inside"
    return ""


class _LinkCheck:
    """Tells whether a path goes through a symbolic link that leaves the folder.

    Each folder is listed once, which is far quicker than resolving a million paths.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = Path(os.path.realpath(folder))
        self._bad: dict[str, frozenset[str] | None] = {}

    def problem(self, name: str) -> str:
        """Empty, or what is wrong, to be followed by the folder's name."""
        parent, _, base = name.rpartition("/")
        if parent not in self._bad:
            self._bad[parent] = self._leaving(parent)
        leaving = self._bad[parent]
        if leaving is None or base in leaving:
            return "is reached by a symbolic link that leaves"
        return ""

    def _leaving(self, parent: str) -> frozenset[str] | None:
        folder = self._folder / parent
        if not self._inside(folder):
            return None
        return frozenset(link for link in _links(folder) if not self._inside(folder / link))

    def _inside(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(self._real)


def real_paths(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """Where each name below a folder leads, through all symbolic links.

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
    """A folder's real path, and which names in it are symbolic links."""
    return os.path.realpath(folder), frozenset(_links(folder))


def _links(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_symlink()]
    except OSError:
        # A missing folder is told image by image when they are read.
        return []


def class_folders(
    place: DataRoot, folder: str, *, classes: int, channels: int
) -> tuple[ImageFiles, Sequence[str]]:
    """Find the images in a folder of class folders; sorted, their names are labels 0, 1, ...

    Files of other extensions are passed over and counted, hidden files and folders too.

    Returns:
        The images, and the class names in the labels' order.

    Raises:
        DataError: the folder is missing, holds another number of class folders than ``classes``, or
            a class has no image; a symbolic link leaves the data set's folder.
    """
    problem = path_problem(folder)
    if problem:
        raise DataError(f"{folder!r} {problem} {place.where}")
    top = place.folder / folder
    class_names = _class_names(place, folder)
    if len(class_names) != classes:
        raise DataError(
            f"{folder} in {place.where}: model.classes is {classes}, but there are "
            f"{len(class_names)} class folders ({_shortened(class_names)})",
            CLASS_COUNT,
        )
    escapes = _LinkCheck(place.folder)
    names: list[str] = []
    labels: list[int] = []
    ignored = 0
    for label, class_name in enumerate(class_names):
        found, passed_over = _images_below(place, top / class_name, escapes)
        if not found:
            raise DataError(
                f"{folder}/{class_name} in {place.where}: this class has no image", EMPTY_CLASS
            )
        names += found
        labels += [label] * len(found)
        ignored += passed_over
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
            f"no folder {folder!r} in {place.where}: {error.strerror}", _holds(top.parent)
        ) from error


def _images_below(place: DataRoot, folder: Path, escapes: _LinkCheck) -> tuple[list[str], int]:
    found: list[str] = []
    passed_over = 0
    for parent, subfolders, files in os.walk(folder):
        relative = os.path.relpath(parent, place.folder)
        for subfolder in subfolders:
            # os.walk does not follow links, and images must not be left out in silence.
            if Path(parent, subfolder).is_symlink():
                raise DataError(
                    f"{relative}/{subfolder} in {place.where}: a symbolic link to a folder; only "
                    "class folders themselves may be links"
                )
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for file in files:
            name = posixpath.normpath(f"{relative}/{file}")
            if file.startswith(".") or posixpath.splitext(file)[1].lower() not in EXTENSIONS:
                passed_over += 1
                continue
            problem = escapes.problem(name)
            if problem:
                raise DataError(f"{name!r} {problem} {place.where}", _LINKED)
            found.append(name)
    return sorted(found), passed_over


def checked_channels(channels: int) -> int:
    """Return the channels if image files can be read so.

    Raises:
        DataError: they cannot.
    """
    if channels not in COLOUR_MODES:
        raise DataError(
            f"image files are read as gray or RGB, but model.input_shape has {channels} channels",
            "Use 1 or 3 channels, or the packed format.",
        )
    return channels


def _holds(folder: Path) -> str:
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return f"The folder {folder} is missing too."
    return f"{folder} holds {_shortened(names)}." if names else f"{folder} is empty."


def _shortened(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
