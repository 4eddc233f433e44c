"""The index of an output in S3: the paths of its files, and the objects with their content.

    <output>/index/<epoch>-<number>.json  the newest index lists the files of the output
    <output>/runs/<run>/<commit>/<path>   the objects that the indexes name; none is overwritten
    <output>/lease/<epoch>-<run>.json     the right to write, see :mod:`job.storage.s3.lease`

Each lease has an epoch: a number that is higher than all earlier epochs. The name of an index
starts with its epoch, and the index with the highest name is the newest. If a run has lost its
lease and still writes an index, this index has an old epoch and is never the newest. Conditional
writes are not needed.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Self

from job.errors import (
    DataError,
    NoRun,
    ObjectChanged,
    ObjectDamaged,
    ObjectMissing,
    StorageError,
)
from job.storage.s3.objects import ObjectStore
from job.uri import S3Uri, on_server

INDEXES = "index"
RUNS = "runs"
_VERSION = 1
_NAME = re.compile(r"(\d{8})-(\d{8})\.json")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST_PATH = 900
# The files that a finished run writes last.
_REPORT = {"report.json", ".report.json"}
_LOST = (
    "Restore the index, if the bucket keeps versions. Or run the job again, which writes a new "
    f"index; remove the old objects below {RUNS}/ yourself."
)
_DAMAGED = (
    "Restore the object, if the bucket keeps versions. Or remove it and run the job again, which "
    "repeats the stages that no other index lists."
)
# A missing index was replaced by a newer one. So many replacements during one read are an error.
_TRIES = 10


@dataclass(frozen=True)
class IndexEntry:
    """A file of the output.

    Attributes:
        object: the object's key, relative to the output's URI.
        bytes: its size.
        sha256: its checksum in hex.
    """

    object: str
    bytes: int
    sha256: str

    @property
    def run(self) -> str:
        """The run that wrote it."""
        return self.object.split("/")[1]

    @property
    def content(self) -> tuple[str, int]:
        """Identifies the content."""
        return self.sha256, self.bytes


@dataclass(frozen=True)
class Index:
    """The files of an output at one time.

    Attributes:
        epoch: the epoch of the writer's lease.
        number: counts the indexes of an epoch.
        runs: the names of the runs that have written below ``runs/``.
        files: the files by path in the output folder, with slashes.
        before: the files of the last finished run. They are kept until a later run has finished.
    """

    epoch: int
    number: int
    runs: tuple[str, ...] = ()
    files: Mapping[str, IndexEntry] = field(default_factory=dict)
    before: Mapping[str, IndexEntry] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its object; later indexes have higher names."""
        return f"{self.epoch:08d}-{self.number:08d}.json"

    @property
    def state(self) -> list[str]:
        """Identifies the index, also after the output was emptied and used again."""
        return [self.name, *self.runs[-1:]]

    @property
    def complete(self) -> bool:
        """True once the run has written its report."""
        return self.files.keys() >= _REPORT

    @property
    def result(self) -> Mapping[str, IndexEntry]:
        """The files of the last finished run; empty if there is none."""
        return self.files if self.complete else self.before

    @property
    def entries(self) -> tuple[IndexEntry, ...]:
        """All files whose objects must stay in the store."""
        return (*self.files.values(), *self.before.values())

    def holding(self, files: Mapping[str, IndexEntry]) -> Self:
        """Return an index with exactly these files."""
        after = replace(self, files=files, before={})
        return after if after.complete else replace(after, before=self.result)

    def as_bytes(self) -> bytes:
        """Return the object's content."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Parse and validate the content of an object.

        Raises:
            ValueError: the content is not a valid index.
        """
        document = json.loads(content)
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise ValueError(f"expected an object of version {_VERSION}")
        runs, before = document.get("runs"), document.get("before", {})
        if not isinstance(runs, list) or not all(
            isinstance(run, str) and _RUN.fullmatch(run) for run in runs
        ):
            raise ValueError("runs: expected a list of names")
        if before and not (isinstance(before, dict) and before.keys() >= _REPORT):
            raise ValueError("before: expected the files of a finished run")
        return cls(
            epoch=_count(document.get("epoch"), "epoch"),
            number=_count(document.get("number"), "number"),
            runs=tuple(runs),
            files=_files(document.get("files"), runs),
            before=_files(before, runs),
        )


# The index of an output before its first run.
EMPTY = Index(0, 0)


def _files(files: Any, runs: list[str]) -> Mapping[str, IndexEntry]:
    if not isinstance(files, dict):
        raise ValueError("files: expected an object")
    folders = {str(each) for path in files for each in PurePosixPath(path).parents}
    if both := sorted(folders & files.keys()):
        raise ValueError(f"{both[0][:100]!a} is both a file and a folder")
    return {_path(path): _entry(path, entry, runs) for path, entry in files.items()}


def _count(value: Any, what: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{what}: expected a whole number of at least 0, found {value!r}")
    return value


def _path(path: str) -> str:
    """Return a path after checking it, because a download uses it as a file name."""
    pure = PurePosixPath(path)
    if (
        pure.is_absolute()
        or str(pure) != path
        or ".." in pure.parts
        or path == "."
        or not path.isprintable()
        or "\\" in path
        or len(path.encode()) > _LONGEST_PATH
    ):
        raise ValueError(f"{path[:100]!a} is not a valid path below the output")
    return path


def _entry(path: str, entry: Any, runs: list[str]) -> IndexEntry:
    if not isinstance(entry, dict) or entry.keys() != {"object", "bytes", "sha256"}:
        raise ValueError(f"{path!a}: expected object, bytes and sha256")
    where, digest = entry["object"], entry["sha256"]
    parts = where.split("/") if isinstance(where, str) else []
    if len(parts) < 3 or parts[0] != RUNS or parts[1] not in runs:
        raise ValueError(f"{path!a}: its object is not below {RUNS}/ of a listed run")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"{path!a}: sha256 is not a SHA-256")
    return IndexEntry(_path(where), _count(entry["bytes"], f"size of {path!a}"), digest)


def names(store: ObjectStore, output: S3Uri) -> tuple[str, ...]:
    """Return the names of an output's indexes, the newest last; other objects are ignored."""
    listed = (entry.uri.name for entry in store.list(output / INDEXES))
    return tuple(sorted(name for name in listed if _NAME.fullmatch(name)))


def epoch_of(name: str) -> int:
    """Return the epoch in the name of an index."""
    return int(name.partition("-")[0])


def newest(store: ObjectStore, output: S3Uri) -> Index | None:
    """Return the newest index of an output; None if no run has written to the output.

    Raises:
        ObjectChanged: the index changes faster than it can be read.
        DataError: the newest index is damaged.
    """
    for _ in range(_TRIES):
        listed = names(store, output)
        if not listed:
            return None
        with suppress(ObjectMissing):  # a newer index has replaced it
            return _named(store, output, listed[-1])
    raise ObjectChanged(
        f"{output}: its index changed {_TRIES} times while it was read", "Try again in a moment."
    )


def write(store: ObjectStore, output: S3Uri, index: Index) -> tuple[str, ...]:
    """Write an index, and return the names of all older indexes.

    Raises:
        ObjectChanged: an index of a higher epoch exists, so this one is not the newest.
        StorageError: the store does not list the index that was written.
    """
    store.put(output / INDEXES / index.name, index.as_bytes())
    listed = names(store, output)
    # The run that wrote a newer index may already have removed this one.
    if listed and listed[-1] > index.name:
        raise ObjectChanged(f"{output}: index {listed[-1]} is newer than {index.name}")
    if index.name not in listed:
        raise StorageError(
            f"{output}: the store does not list index {index.name}, which was just written",
            "Use a store that lists an object as soon as it is written.",
        )
    return listed[:-1]


def take_over(
    store: ObjectStore, output: S3Uri, claim: Callable[[Index, int], Index]
) -> tuple[Index, Index]:
    """Write the first index of a new epoch, based on the newest index before.

    After this call, :func:`write` fails for runs with an older epoch. The function lists the
    indexes again after it has written the new one. If an older run wrote an index during the
    takeover, the new index is written again, based on that index. So no index for which
    :func:`write` succeeded is lost.

    Args:
        store: access to S3.
        output: the output.
        claim: returns the index of the new epoch, from the earlier index and a number.

    Returns:
        The index before, and the index that was written.

    Raises:
        ObjectChanged: other runs wrote an index at every attempt.
    """
    base = newest(store, output) or EMPTY
    for number in range(_TRIES):
        index = claim(base, number)
        older = [name for name in write(store, output, index) if epoch_of(name) < index.epoch]
        if not older or older[-1] == base.name:
            return base, index
        with suppress(ObjectMissing):  # a newer run has taken over; the next write() fails
            base = _named(store, output, older[-1])
    raise ObjectChanged(
        f"{output}: cannot take over, its index changed {_TRIES} times",
        "Run the same command again.",
    )


def _named(store: ObjectStore, output: S3Uri, name: str) -> Index:
    uri = output / INDEXES / name
    try:
        content = store.read(uri)
    except ObjectDamaged as error:
        raise DataError(error.message, _DAMAGED) from error
    try:
        index = Index.from_bytes(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri} is not a valid index: {error}", _DAMAGED) from error
    if index.name != name:
        raise DataError(f"{uri} is damaged: its content is index {index.name}", _DAMAGED)
    return index


def read(store: ObjectStore, output: S3Uri) -> Index:
    """Return the newest index of an output that has one.

    Raises:
        NoRun: no run has written to the output.
        DataError: the index is damaged or missing.
    """
    index = newest(store, output)
    if index is None:
        if any(True for _ in store.list(output / RUNS)):
            raise DataError(f"{output} has files of a run, but no index", _LOST)
        raise NoRun(
            f"no run in {on_server(output, store.server)}",
            "Give the output of a run, as in its manifest, and its server.",
        )
    return index
