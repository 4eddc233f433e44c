"""What a data set in S3 holds, as one file: names, sizes, and what each file must be.

    {"kind": "objects"}
    ["train/cat/0.jpg", 91342, "\\"9e107d9d372bb6826bd81d3542a419d6\\""]

    {"kind": "members", "shards": [["a.tar", 104857600, "\\"...\\""]]}
    ["train/cat/0.jpg", 91342, "SHA-256", 0, 1536]

An object has its ETag at the time of listing; a member of a tar file has its digest, the number of
its tar file and its place in it. The bucket is not told: a copy in another is the same data set.
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
from job.storage.s3.objects import S3Object
from job.storage.s3.prefetch import Piece
from job.uri import S3Uri

OBJECTS, MEMBERS = "objects", "members"
_UNKNOWN_TIME = datetime.fromtimestamp(0, UTC)
# What reading a damaged file raises; deeply nested JSON raises RecursionError.
_DAMAGE = (OSError, ValueError, RecursionError, TypeError, LookupError, StopIteration)


@dataclass(frozen=True)
class Member:
    """A file in a tar file."""

    name: str
    bytes: int
    sha256: str
    start: int


@dataclass(frozen=True, eq=False)
class RemoteIndex:
    """The files of a data set.

    Attributes:
        root: what the names are relative to.
        names: sorted.
        sizes: in bytes, int64.
        marks: of each file: the object's ETag, or the member's SHA-256.
        shards: the tar files; empty if the files are objects.
        places: int64 ``[n, 2]``, number of the tar file and first byte in it; None for objects.
    """

    root: S3Uri
    names: tuple[str, ...]
    sizes: Ints
    marks: tuple[str, ...]
    shards: tuple[S3Object, ...] = ()
    places: Ints | None = None

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The place of each name."""
        return {name: place for place, name in enumerate(self.names)}

    def piece(self, place: int) -> Piece:
        """What is to be read for a file."""
        size = int(self.sizes[place])
        if self.places is None:
            uri = S3Uri(self.root.bucket, self.root.below + self.names[place])
            return Piece(S3Object(uri, size, self.marks[place], _UNKNOWN_TIME), None, size, None)
        shard, start = map(int, self.places[place])
        return Piece(self.shards[shard], start, size, self.marks[place])


def of_objects(root: S3Uri, found: Iterable[S3Object]) -> bytes:
    """The content of an index of objects below a prefix."""
    rows = [(each.uri.key.removeprefix(root.below), each.bytes, each.etag) for each in found]
    return _content({"kind": OBJECTS}, sorted(rows))


def of_shards(root: S3Uri, shards: Sequence[tuple[S3Object, Sequence[Member]]]) -> bytes:
    """The content of an index of tar files.

    Raises:
        DataError: two of them hold a file of the same name.
    """
    rows = sorted(
        (member.name, member.bytes, member.sha256, number, member.start)
        for number, (_, members) in enumerate(shards)
        for member in members
    )
    for before, after in itertools.pairwise(rows):
        if before[0] == after[0]:
            both = " and ".join(sorted({str(shards[row[3]][0].uri) for row in (before, after)}))
            raise DataError(f"{both}: {after[0]!r} comes twice", "Each image needs its own name.")
    told = [
        (shard.uri.key.removeprefix(root.below), shard.bytes, shard.etag) for shard, _ in shards
    ]
    if len(told) == 1 and shards[0][0].uri == root:
        told = [("", *told[0][1:])]
    return _content({"kind": MEMBERS, "shards": told}, rows)


def of_members(members: Iterable[Member]) -> bytes:
    """The content of a list of one tar file's members."""
    return _content({}, [(each.name, each.bytes, each.sha256, each.start) for each in members])


def read_members(path: Path) -> list[Member] | None:
    """Read such a list; None if it is damaged or gone."""
    try:
        lines = _lines(path)
        next(lines)
        return [Member(*line) for line in lines]
    except _DAMAGE:
        return None


def read(path: Path, root: S3Uri) -> RemoteIndex:
    """Read an index that one of the above wrote.

    Raises:
        DataError: it is damaged.
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
                S3Uri(root.bucket, root.below + name) if name else root, size, etag, _UNKNOWN_TIME
            )
            for name, size, etag in header["shards"]
        )
        places = np.asarray(columns[3:5], np.int64).T.reshape(-1, 2)
        return RemoteIndex(root, names, np.asarray(sizes, np.int64), marks, shards, places)
    except _DAMAGE as error:
        raise DataError(f"{path}: a damaged index of {root}: {error}", "Remove it.") from error


def _content(header: Mapping[str, Any], rows: Iterable[Sequence[Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in (header, *rows)).encode()


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
