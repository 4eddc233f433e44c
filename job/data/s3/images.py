"""A data set in S3. Its images are read through the cache, before they are needed."""

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from job.data.decode import EXTENSIONS, UnreadableImageError, decode_content
from job.data.list_file import list_entries, path_problem
from job.data.listing import CLASS_COUNT, EMPTY_CLASS, checked_channels
from job.data.objects import ObjectTable, checked
from job.data.s3.index import RemoteIndex
from job.data.system_folders import system_part
from job.data.transforms import Image, Ints
from job.detection.annotations import Annotations
from job.errors import DataError
from job.manifest import Manifest
from job.manifest.spec import BUILT_IN
from job.manifest.storage_access import access_of
from job.storage.s3.access import Access
from job.storage.s3.prefetch import FetchAhead, PieceReader
from job.uri import S3Uri

# Place of an image that is not in the index.
MISSING = -1
_NAMED_CLASSES = 5


@dataclass(frozen=True)
class Remote:
    """The prefix or archive of a data set in S3, and access to it."""

    uri: S3Uri
    access: Access


def remote_of(manifest: Manifest) -> Remote | None:
    """Return the data set in S3 of a manifest; None if its images are on this machine."""
    if manifest.data.format in (*BUILT_IN, "packed"):
        return None
    uri = manifest.uri(manifest.data.root or ".")
    return None if uri is None else Remote(uri, access_of(manifest.storage, manifest.base))


@dataclass(frozen=True, eq=False)
class RemoteImages:
    """Image files in S3, each an object or a member of a tar file.

    Attributes:
        index: the index of all files.
        places: int64 ``[n]``, positions of the images in the index; -1 for missing images.
        names: names of the images below the root of the index.
        labels: int64 ``[n]``.
        channels: 1 (gray) or 3 (RGB); images are converted.
        reader: reads the images.
        ignored: number of files that were skipped because of their extension.
        system_folders: number of files that were skipped in system folders, by folder name.
        class_names: name of each class by label; empty if only numbers are known.
        normalised: False; see ``Source``.
    """

    index: RemoteIndex
    places: Ints
    names: Sequence[str]
    labels: Ints
    channels: int
    reader: PieceReader
    ignored: int = 0
    system_folders: Mapping[str, int] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    normalised: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_ahead"}

    @property
    def where(self) -> str:
        """The URI of the prefix or the tar file, for messages."""
        return str(self.index.root)

    @cached_property
    def _ahead(self) -> FetchAhead:
        return FetchAhead(self.reader)

    def prefetch(self, indices: Sequence[int]) -> None:
        """Start to download images that will be read soon."""
        existing = [index for index in indices if self.places[index] != MISSING]
        self._ahead.start({index: self.index.piece(int(self.places[index])) for index in existing})

    def ready(self, index: int, seconds: float) -> bool:
        """Wait for an image, and return whether it can be read without waiting."""
        return self._ahead.wait(index, seconds)

    def read(self, index: int) -> Image:
        """Return an image, uint8 ``[height, width, channels]``.

        Raises:
            UnreadableImageError: the object does not exist or is not an image.
            DataError: the object has changed, or access is denied.
            TransferFailed: the network or the server failed at every attempt.
        """
        place = int(self.places[index])
        if place == MISSING:
            raise UnreadableImageError("the object does not exist")
        return decode_content(self._ahead.take(index, self.index.piece(place)), self.channels)


@dataclass(frozen=True, eq=False, kw_only=True)
class RemoteObjects(RemoteImages):
    """Image files in S3 with objects; each label is 0.

    Attributes:
        objects: the objects of each image, in pixels of the image.
    """

    objects: ObjectTable

    def read_labelled(self, index: int) -> tuple[Image, Annotations]:
        """See ``LabelledSource``."""
        return checked(self.read(index), self.objects, index, self.names[index])


def remote_list(
    index: RemoteIndex,
    remote: Remote,
    path: Path,
    named: str,
    *,
    classes: int | None,
    channels: int,
) -> RemoteImages:
    """Read a list of ``path label`` lines; see ``listing.image_list``.

    Args:
        index: the index of the data set.
        remote: access to the data set.
        path: the list, on this machine.
        named: the list's name in messages.
        classes: the number of classes; every label is less. None: the list has no labels.
        channels: 1 (gray) or 3 (RGB).

    Raises:
        DataError: see ``listing.image_list``.
    """
    names: list[str] = []
    labels: list[int] = []
    for name, label in list_entries(path, named, str(remote.uri), classes):
        names.append(name)
        labels.append(label)
    positions = index.positions
    places = np.asarray([positions.get(name, MISSING) for name in names], np.int64)
    return RemoteImages(
        index=index,
        places=places,
        names=tuple(names),
        labels=np.asarray(labels, np.int64),
        channels=checked_channels(channels),
        reader=PieceReader(remote.access),
    )


def remote_class_folders(
    index: RemoteIndex, remote: Remote, folder: str, *, classes: int, channels: int
) -> tuple[RemoteImages, Sequence[str]]:
    """Find the images below a prefix of class folders; see ``listing.class_folders``."""
    problem = path_problem(folder)
    if problem:
        raise DataError(f"{folder!r} {problem} {remote.uri}")
    prefix = "" if folder == "." else f"{folder.strip('/')}/"
    by_class: dict[str, list[int]] = {}
    ignored = 0
    system = Counter[str]()
    for number, name in enumerate(index.names):
        below = name.removeprefix(prefix)
        class_name, slash, rest = below.partition("/")
        # A key such as train//x.png has no class folder, like train/x.png.
        if not name.startswith(prefix) or not slash or not class_name:
            continue
        if excluded := system_part(posixpath.dirname(below)):
            system[excluded] += 1
            continue
        images = by_class.setdefault(class_name, [])
        hidden = posixpath.basename(rest).startswith(".")
        if hidden or not name.lower().endswith(tuple(EXTENSIONS)):
            ignored += 1
        else:
            images.append(number)
    _check_classes(remote, folder, by_class, classes)
    class_names = sorted(by_class)
    places = np.concatenate([np.asarray(by_class[name], np.int64) for name in class_names])
    source = RemoteImages(
        index=index,
        places=places,
        names=tuple(index.names[number] for number in places),
        labels=np.repeat(np.arange(classes), [len(by_class[name]) for name in class_names]),
        channels=checked_channels(channels),
        reader=PieceReader(remote.access),
        ignored=ignored,
        system_folders=system,
        class_names=tuple(class_names),
    )
    return source, class_names


def _check_classes(
    remote: Remote, folder: str, by_class: dict[str, list[int]], classes: int
) -> None:
    if not by_class:
        raise DataError(
            f"{remote.uri}: no objects below {folder}/", "Correct data.root or the folder's name."
        )
    if len(by_class) != classes:
        more = ", ..." if len(by_class) > _NAMED_CLASSES else ""
        raise DataError(
            f"{folder} in {remote.uri}: expected {classes} class folders (model.classes), found "
            f"{len(by_class)} ({', '.join(sorted(by_class)[:_NAMED_CLASSES])}{more})",
            CLASS_COUNT,
        )
    for name, images in by_class.items():
        if not images:
            raise DataError(f"{folder}/{name} in {remote.uri}: the class has no image", EMPTY_CLASS)
