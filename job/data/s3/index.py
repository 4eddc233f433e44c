"""The index of a data set in S3, as one file: names, sizes and identities of its files.

    {"kind": "objects"}
    ["train/cat/0.jpg", 91342, "\\"9e107d9d372bb6826bd81d3542a419d6\\""]

    {"kind": "members", "shards": [["a.tar", 104857600, "\\"...\\""]]}
    ["train/cat/0.jpg", 91342, "SHA-256", 0, 1536]

An object has its ETag at the time of listing. A member of a tar file has its SHA-256, the number of
its tar file and its offset there. The bucket is omitted, because a copy in another bucket is the
same data set.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from job.data.transforms import Ints
from job.errors import DataError
from job.storage.s3.prefetch import Piece
from job.storage.s3.responses import S3Object
from job.uri import S3Uri

OBJECTS, MEMBERS = "objects", "members"
UNKNOWN_TIME = datetime.fromtimestamp(0, UTC)
# What reading a damaged file raises. Deeply nested JSON raises RecursionError, and a number above
# 64 bits OverflowError.
_DAMAGE = (
    OSError,
    ValueError,
    RecursionError,
    OverflowError,
    TypeError,
    LookupError,
    StopIteration,
)


@dataclass(frozen=True)
class Member:
    """A file in a tar file.

    Attributes:
        name: its path in the tar file.
        bytes: its size.
        sha256: its checksum in hex.
        start: the offset of its first byte.
    """

    name: str
    bytes: int
    sha256: str
    start: int


@dataclass(frozen=True, eq=False)
class RemoteIndex:
    """The files of a data set.

    Attributes:
        root: the URI that the names are relative to.
        names: the sorted names of the files.
        sizes: int64 ``[n]``, sizes in bytes.
        marks: the ETag of each object, or the SHA-256 of each member.
        shards: the tar files; empty if the files are objects.
        places: int64 ``[n, 2]``, number of the tar file and offset there; None for objects.
    """

    root: S3Uri
    names: tuple[str, ...]
    sizes: Ints
    marks: tuple[str, ...]
    shards: tuple[S3Object, ...] = ()
    places: Ints | None = None

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The position of each name."""
        return {name: place for place, name in enumerate(self.names)}

    def piece(self, place: int) -> Piece:
        """Return the piece that contains the file at a position."""
        size = int(self.sizes[place])
        if self.places is None:
            uri = S3Uri(self.root.bucket, self.root.below + self.names[place])
            return Piece(S3Object(uri, size, self.marks[place], UNKNOWN_TIME), None, size, None)
        shard, start = map(int, self.places[place])
        return Piece(self.shards[shard], start, size, self.marks[place])


def object_lines(root: S3Uri, rows: Iterable[tuple[str, int, str]]) -> Iterator[bytes]:
    """Yield the lines of an index of objects below a prefix.

    Args:
        root: the prefix.
        rows: key, size in bytes, and ETag of each object, sorted by key.
    """
    start = len(root.below)
    return _lines_of({"kind": OBJECTS}, ((key[start:], size, etag) for key, size, etag in rows))


def of_shards(root: S3Uri, shards: Sequence[tuple[S3Object, Sequence[Member]]]) -> bytes:
    """Return the content of an index of tar files.

    Raises:
        DataError: two files have the same name.
    """
    rows = sorted(
        (member.name, member.bytes, member.sha256, number, member.start)
        for number, (_, members) in enumerate(shards)
        for member in members
    )
    for before, after in itertools.pairwise(rows):
        if before[0] == after[0]:
            both = " and ".join(sorted({str(shards[row[3]][0].uri) for row in (before, after)}))
            raise DataError(f"{both}: duplicate name {after[0]!r}", "Give each image its own name.")
    described = [
        (shard.uri.key.removeprefix(root.below), shard.bytes, shard.etag) for shard, _ in shards
    ]
    if len(described) == 1 and shards[0][0].uri == root:
        described = [("", *described[0][1:])]
    return _content({"kind": MEMBERS, "shards": described}, rows)


def of_members(members: Iterable[Member]) -> bytes:
    """Return the content of a list of the members of one tar file."""
    return _content({}, [(each.name, each.bytes, each.sha256, each.start) for each in members])


def read_members(path: Path) -> list[Member] | None:
    """Read a list of :func:`of_members`; None if it is damaged or missing."""
    try:
        lines = _lines(path)
        next(lines)
        return [Member(*line) for line in lines]
    except _DAMAGE:
        return None


def read(path: Path, root: S3Uri) -> RemoteIndex:
    """Read an index of :func:`object_lines` or :func:`of_shards`.

    Raises:
        DataError: the file is damaged.
    """
    try:
        lines = _lines(path)
        header = next(lines)
        columns = list(zip(*lines, strict=True)) or [(), (), (), (), ()]
        names, sizes, marks = columns[:3]
        if header["kind"] == OBJECTS:
            return RemoteIndex(root, names, np.asarray(sizes, np.int64), marks)
        shards = tuple(
            S3Object(
                S3Uri(root.bucket, root.below + name) if name else root, size, etag, UNKNOWN_TIME
            )
            for name, size, etag in header["shards"]
        )
        places = np.asarray(columns[3:5], np.int64).T.reshape(-1, 2)
        if np.any((places[:, 0] < 0) | (places[:, 0] >= len(shards))):
            raise ValueError(f"expected numbers of {len(shards)} tar files, found another number")
        return RemoteIndex(root, names, np.asarray(sizes, np.int64), marks, shards, places)
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged index of {root}: {error}", "Remove this file.") from error


def _content(header: Mapping[str, Any], rows: Iterable[Sequence[Any]]) -> bytes:
    return b"".join(_lines_of(header, rows))


def _lines_of(header: Mapping[str, Any], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    return (json.dumps(row).encode() + b"\n" for row in itertools.chain((header,), rows))


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
