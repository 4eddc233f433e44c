"""The files of a data set by name, on a local disk or in S3."""

import io
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from job.data.decode import EXTENSIONS
from job.data.list_file import content_of, path_problem
from job.data.listing import DataRoot, LinkCheck, checked_channels, images_below
from job.data.objects import ObjectFiles, ObjectTable
from job.data.s3.images import MISSING, Remote, RemoteImages, RemoteObjects
from job.data.s3.index import RemoteIndex
from job.data.sources import ImageFiles, Source
from job.data.system_folders import system_part
from job.errors import DataError
from job.storage.files import open_regular
from job.storage.s3.prefetch import FetchAhead, PieceReader

# Files that are downloaded before they are read.
_AHEAD = 64


class DataFiles(Protocol):
    """The files of a data set."""

    @property
    def where(self) -> str:
        """The folder, archive or prefix as in the manifest, for messages."""

    def read(self, names: Sequence[str]) -> Iterator[BinaryIO]:
        """Yield the opened files; each is closed when the next one is requested.

        Raises:
            DataError: a file is missing, or a name leads out of the data set.
        """

    def images(self, folder: str) -> Sequence[str]:
        """Return the sorted names of the images in a folder and its subfolders.

        Raises:
            DataError: the folder does not exist, or leads out of the data set.
        """

    def source(
        self,
        names: Sequence[str],
        channels: int,
        table: ObjectTable | None = None,
        class_names: Sequence[str] = (),
    ) -> Source:
        """Return images as a source, with their objects unless ``table`` is None.

        Raises:
            DataError: a link leads out of the data set.
        """


@dataclass(frozen=True, eq=False)
class LocalFiles:
    """Files below a folder; see ``DataFiles``."""

    place: DataRoot

    @property
    def where(self) -> str:
        """See ``DataFiles``."""
        return self.place.where

    @cached_property
    def _links(self) -> LinkCheck:
        return LinkCheck(self.place.folder)

    def read(self, names: Sequence[str]) -> Iterator[BinaryIO]:
        """See ``DataFiles``."""
        for name in names:
            problem = path_problem(name) or self._links.problem(name)
            if problem:
                raise DataError(f"{name!r} {problem} {self.where}")
            path = self.place.folder / name
            with _opened(path, f"{name} in {self.where}") as file:
                yield file

    def images(self, folder: str) -> Sequence[str]:
        """See ``DataFiles``."""
        if problem := path_problem(folder):
            raise DataError(f"{folder!r} {problem} {self.where}")
        path = self.place.folder / folder
        if not path.is_dir():
            raise DataError(
                f"{folder!r} in {self.where}: expected a folder of images", content_of(path.parent)
            )
        return images_below(self.place, path, self._links)

    def source(
        self,
        names: Sequence[str],
        channels: int,
        table: ObjectTable | None = None,
        class_names: Sequence[str] = (),
    ) -> Source:
        """See ``DataFiles``."""
        for name in names:
            if problem := self._links.problem(name):
                raise DataError(f"{name!r} {problem} {self.where}")
        plain = ImageFiles(
            folder=self.place.folder,
            where=self.where,
            names=tuple(names),
            labels=np.zeros(len(names), np.int64),
            channels=checked_channels(channels),
            class_names=tuple(class_names),
        )
        return plain if table is None else ObjectFiles(**vars(plain), objects=table)


@dataclass(frozen=True, eq=False)
class RemoteFiles:
    """Files in S3; see ``DataFiles``."""

    index: RemoteIndex
    remote: Remote

    @property
    def where(self) -> str:
        """See ``DataFiles``."""
        return str(self.remote.uri)

    def read(self, names: Sequence[str]) -> Iterator[BinaryIO]:
        """See ``DataFiles``."""
        positions = self.index.positions
        missing = next((name for name in names if name not in positions), None)
        if missing is not None:
            raise DataError(
                f"cannot read {missing} in {self.where}: the object does not exist",
                "Upload the object, or correct the list that names the object.",
            )
        pieces = [self.index.piece(positions[name]) for name in names]
        ahead = FetchAhead(PieceReader(self.remote.access))
        for number, piece in enumerate(pieces):
            if number % _AHEAD == 0:
                ahead.start(dict(enumerate(pieces[number : number + _AHEAD], number)))
            yield io.BytesIO(ahead.take(number, piece))

    def images(self, folder: str) -> Sequence[str]:
        """See ``DataFiles``."""
        if problem := path_problem(folder):
            raise DataError(f"{folder!r} {problem} {self.where}")
        top = posixpath.normpath(folder)
        prefix = "" if top == "." else f"{top}/"
        below = [name for name in self.index.names if name.startswith(prefix)]
        if not below:
            raise DataError(
                f"{self.where}: no objects below {folder}/", "Correct data.root or the folder."
            )
        return [
            name
            for name in below
            if name.lower().endswith(tuple(EXTENSIONS))
            and not posixpath.basename(name).startswith(".")
            and not system_part(posixpath.dirname(name.removeprefix(prefix)))
        ]

    def source(
        self,
        names: Sequence[str],
        channels: int,
        table: ObjectTable | None = None,
        class_names: Sequence[str] = (),
    ) -> Source:
        """See ``DataFiles``."""
        positions = self.index.positions
        plain = RemoteImages(
            index=self.index,
            places=np.asarray([positions.get(name, MISSING) for name in names], np.int64),
            names=tuple(names),
            labels=np.zeros(len(names), np.int64),
            channels=checked_channels(channels),
            reader=PieceReader(self.remote.access),
            class_names=tuple(class_names),
        )
        return plain if table is None else RemoteObjects(**vars(plain), objects=table)


@contextmanager
def list_file(files: DataFiles, name: str, local: Path | None) -> Iterator[BinaryIO]:
    """Open a list: the local file if it is given, otherwise a file of the data set.

    Raises:
        DataError: the file is missing.
    """
    if local is None:
        yield from files.read([name])
        return
    with _opened(local, f"list {local}") as file:
        yield file


@contextmanager
def _opened(path: Path, named: str) -> Iterator[BinaryIO]:
    """Open a file of this machine; errors call it ``named``."""
    try:
        file = open_regular(path)
    except OSError as error:
        raise DataError(
            f"cannot read {named}: {error.strerror}", content_of(path.parent)
        ) from error
    with file:
        yield file
