"""A data set in S3: its images are read when they are needed, ahead of need, through the cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from job.data.decode import EXTENSIONS, UnreadableImageError, decode_content
from job.data.listing import CLASS_COUNT, EMPTY_CLASS, checked_channels, list_entries, path_problem
from job.data.s3.index import RemoteIndex
from job.data.transforms import Image, Ints
from job.errors import DataError
from job.manifest import Manifest
from job.manifest.storage_access import access_of
from job.storage.s3.access import Access
from job.storage.s3.prefetch import FetchAhead, PieceReader
from job.uri import S3Uri

_MISSING = -1


@dataclass(frozen=True)
class Remote:
    """A data set's prefix or archive in S3, and the way there."""

    uri: S3Uri
    access: Access


def remote_of(manifest: Manifest) -> Remote | None:
    """Where a manifest's images are, None if they are on this machine."""
    if manifest.data.format in ("digits", "synthetic", "packed"):
        return None
    uri = manifest.uri(manifest.data.root or ".")
    return None if uri is None else Remote(uri, access_of(manifest.storage, manifest.base))


@dataclass(frozen=True, eq=False)
class RemoteImages:
    """Image files in S3, each an object or a member of a tar file.

    Attributes:
        index: of all files.
        places: int64 ``[n]``, the images' places in the index; -1 for those that are not there.
        names: as the list has them.
        labels: int64 ``[n]``.
        channels: 1 (gray) or 3 (RGB); files are converted.
        reader: reads them.
        ignored: files that were passed over because their extension is not an image's.
    """

    index: RemoteIndex
    places: Ints
    names: Sequence[str]
    labels: Ints
    channels: int
    reader: PieceReader
    ignored: int = 0
    normalised: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_ahead"}

    @property
    def where(self) -> str:
        """The prefix, or the tar file."""
        return str(self.index.root)

    @cached_property
    def _ahead(self) -> FetchAhead:
        return FetchAhead(self.reader)

    def prefetch(self, indices: Sequence[int]) -> None:
        """Begin to fetch images that will be read soon."""
        there = [index for index in indices if self.places[index] != _MISSING]
        self._ahead.start({index: self.index.piece(int(self.places[index])) for index in there})

    def ready(self, index: int, seconds: float) -> bool:
        """Wait until an image that is being fetched can be read without waiting."""
        return self._ahead.wait(index, seconds)

    def read(self, index: int) -> Image:
        """uint8 ``[height, width, channels]``; see ``Source.read``.

        Raises:
            UnreadableImageError: there is no such object, or it is no image.
            DataError: it changed, or access to it is refused.
            TransferFailed: the network or the server fails.
        """
        place = int(self.places[index])
        if place == _MISSING:
            raise UnreadableImageError("no such object")
        return decode_content(self._ahead.take(index, self.index.piece(place)), self.channels)


def remote_list(
    index: RemoteIndex, remote: Remote, path: Path, named: str, *, classes: int, channels: int
) -> RemoteImages:
    """Read a list of ``path label`` lines; see ``listing.image_list``.

    Args:
        index: of the data set.
        remote: the way there.
        path: of the list, on this machine.
        named: what messages call it.
        classes: every label is below.
        channels: of the images.
    """
    names: list[str] = []
    labels: list[int] = []
    for name, label in list_entries(path, named, str(remote.uri), classes):
        names.append(name)
        labels.append(label)
    positions = index.positions
    places = np.asarray([positions.get(name, _MISSING) for name in names], np.int64)
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
    """Find the images below a prefix with a folder for each class; as ``listing.class_folders``."""
    problem = path_problem(folder)
    if problem:
        raise DataError(f"{folder!r} {problem} {remote.uri}")
    prefix = "" if folder == "." else f"{folder.strip('/')}/"
    found: dict[str, list[int]] = {}
    ignored = 0
    for number, name in enumerate(index.names):
        class_name, slash, rest = name.removeprefix(prefix).partition("/")
        if not name.startswith(prefix) or not slash or class_name.startswith((".", "__MACOSX")):
            continue
        images = found.setdefault(class_name, [])
        hidden = any(part.startswith(".") for part in rest.split("/"))
        if hidden or not name.lower().endswith(tuple(EXTENSIONS)):
            ignored += 1
        else:
            images.append(number)
    _check_classes(remote, folder, found, classes)
    class_names = sorted(found)
    places = np.concatenate([np.asarray(found[name], np.int64) for name in class_names])
    source = RemoteImages(
        index=index,
        places=places,
        names=tuple(index.names[number] for number in places),
        labels=np.repeat(np.arange(classes), [len(found[name]) for name in class_names]),
        channels=checked_channels(channels),
        reader=PieceReader(remote.access),
        ignored=ignored,
    )
    return source, class_names


def _check_classes(remote: Remote, folder: str, found: dict[str, list[int]], classes: int) -> None:
    if not found:
        raise DataError(
            f"{remote.uri}: nothing is below {folder}/", "Correct data.root or the folder's name."
        )
    if len(found) != classes:
        raise DataError(
            f"{folder} in {remote.uri}: model.classes is {classes}, but there are {len(found)} "
            f"class folders ({', '.join(sorted(found)[:5])}{', ...' if len(found) > 5 else ''})",
            CLASS_COUNT,
        )
    for name, images in found.items():
        if not images:
            raise DataError(
                f"{folder}/{name} in {remote.uri}: this class has no image", EMPTY_CLASS
            )
