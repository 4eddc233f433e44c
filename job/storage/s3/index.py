"""The index of an output in S3: which files there are, and which objects hold them.

    <output>/index/<epoch>-<number>.json  the newest one is what the output holds
    <output>/runs/<run>/<commit>/<path>   what the indexes name; no object is ever written twice
    <output>/lease/<epoch>-<run>.json     who may write, see :mod:`job.storage.s3.lease`

Whoever holds the lease has an epoch of its own, higher than all before. An index is written under
a name of its epoch, and the highest name counts: what a run writes that lost its lease without
noticing is never the newest, on any store, without conditional writes.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Self

from job.errors import DataError, NoRun, ObjectChanged, ObjectMissing, StorageError
from job.storage.s3.objects import ObjectStore
from job.uri import S3Uri

INDEXES = "index"
RUNS = "runs"
_VERSION = 1
_NAME = re.compile(r"(\d{8})-(\d{8})\.json")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST_PATH = 900
# Written last, by a run that is finished.
_REPORT = {"report.json", ".report.json"}
_LOST = (
    "Put the index back as it was (a versioned bucket still has it). Or run the job again, which "
    f"writes another one; what lies below {RUNS}/ then stays until you remove it."
)
_DAMAGED = (
    "Put the object back as it was (a versioned bucket still has it). Or remove it and run the job "
    "again: what no other index names is made anew."
)
# Each index that is gone was replaced by a newer one; a reader is not overtaken for ever.
_TRIES = 10


@dataclass(frozen=True)
class IndexEntry:
    """A file of the output.

    Attributes:
        object: where it is, relative to the output's URI.
        bytes: its size.
        sha256: its digest in hex.
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
        """What tells equal files."""
        return self.sha256, self.bytes


@dataclass(frozen=True)
class Index:
    """What an output holds at one moment.

    Attributes:
        epoch: of the lease that its writer held.
        number: counts the indexes of an epoch.
        runs: every run that has written below ``runs/``, by the names of their folders.
        files: by the path in the output folder, with slashes.
        before: the files of the last finished run, while a later one is not finished.
    """

    epoch: int
    number: int
    runs: tuple[str, ...] = ()
    files: Mapping[str, IndexEntry] = field(default_factory=dict)
    before: Mapping[str, IndexEntry] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its object's name; later indexes have higher ones."""
        return f"{self.epoch:08d}-{self.number:08d}.json"

    @property
    def state(self) -> list[str]:
        """Tells it from every other index, also from one of an output that was emptied since."""
        return [self.name, *self.runs[-1:]]

    @property
    def complete(self) -> bool:
        """True once the run has written its report."""
        return self.files.keys() >= _REPORT

    @property
    def result(self) -> Mapping[str, IndexEntry]:
        """The files of the last finished run; empty if none ever was."""
        return self.files if self.complete else self.before

    @property
    def entries(self) -> tuple[IndexEntry, ...]:
        """All that must stay in the store."""
        return (*self.files.values(), *self.before.values())

    def holding(self, files: Mapping[str, IndexEntry]) -> Self:
        """Return the index of the same output once it has these files and no others."""
        after = replace(self, files=files, before={})
        return after if after.complete else replace(after, before=self.result)

    def as_bytes(self) -> bytes:
        """Return the object's content."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read an object's content; nothing in it is trusted.

        Raises:
            ValueError: it is not an index, or names what it must not.
        """
        document = json.loads(content)
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise ValueError(f"it is not of version {_VERSION}")
        runs, before = document.get("runs"), document.get("before", {})
        if not isinstance(runs, list) or not all(
            isinstance(run, str) and _RUN.fullmatch(run) for run in runs
        ):
            raise ValueError("its runs are not a list of names")
        if before and not (isinstance(before, dict) and before.keys() >= _REPORT):
            raise ValueError("the files before it are not those of a finished run")
        return cls(
            epoch=_count(document.get("epoch"), "epoch"),
            number=_count(document.get("number"), "number"),
            runs=tuple(runs),
            files=_files(document.get("files"), runs),
            before=_files(before, runs),
        )


# What an output holds before its first run.
EMPTY = Index(0, 0)


def _files(files: Any, runs: list[str]) -> Mapping[str, IndexEntry]:
    if not isinstance(files, dict):
        raise ValueError("its files are not an object")
    folders = {str(each) for path in files for each in PurePosixPath(path).parents}
    if both := sorted(folders & files.keys()):
        raise ValueError(f"{both[0][:100]!a} is a file and a folder")
    return {_path(path): _entry(path, entry, runs) for path, entry in files.items()}


def _count(value: Any, what: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"its {what} is {value!r}")
    return value


def _path(path: str) -> str:
    """Check a path that may become a file on a reader's disk."""
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
        raise ValueError(f"{path[:100]!a} is no path below the output")
    return path


def _entry(path: str, entry: Any, runs: list[str]) -> IndexEntry:
    if not isinstance(entry, dict) or entry.keys() != {"object", "bytes", "sha256"}:
        raise ValueError(f"{path!a} has not object, bytes and sha256")
    where, digest = entry["object"], entry["sha256"]
    parts = where.split("/") if isinstance(where, str) else []
    if len(parts) < 3 or parts[0] != RUNS or parts[1] not in runs:
        raise ValueError(f"{path!a} lies outside of {RUNS}/")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"{path!a} has no SHA-256")
    return IndexEntry(_path(where), _count(entry["bytes"], f"size of {path!a}"), digest)


def names(store: ObjectStore, output: S3Uri) -> tuple[str, ...]:
    """Return the names of an output's indexes, the newest last; foreign objects do not count."""
    found = (each.uri.name for each in store.list(output / INDEXES))
    return tuple(sorted(name for name in found if _NAME.fullmatch(name)))


def epoch_of(name: str) -> int:
    """Return the epoch in an index's name."""
    return int(name.partition("-")[0])


def newest(store: ObjectStore, output: S3Uri) -> Index | None:
    """Return what an output holds; None when no run has ever written to it.

    Raises:
        StorageError: the newest index cannot be read.
        DataError: it is none, or not the one that was written there.
    """
    for _ in range(_TRIES):
        found = names(store, output)
        if not found:
            return None
        with suppress(ObjectMissing):  # a newer one is there by now
            return _named(store, output, found[-1])
    raise StorageError(
        f"{output}: its index changes faster than it can be read", "Try again in a moment."
    )


def write(store: ObjectStore, output: S3Uri, index: Index) -> tuple[str, ...]:
    """Write an index, and return the names of all older ones.

    Raises:
        ObjectChanged: one of a higher epoch is there: this one does not count.
        StorageError: the store does not list what was written.
    """
    store.put(output / INDEXES / index.name, index.as_bytes())
    found = names(store, output)
    # The run that wrote a newer one has perhaps removed this one already.
    if found and found[-1] > index.name:
        raise ObjectChanged(f"{output}: {found[-1]} is newer than {index.name}")
    if index.name not in found:
        raise StorageError(
            f"{output}: the store does not list {index.name}, which was just written",
            "Use a store that lists at once what was put there.",
        )
    return found[:-1]


def take_over(
    store: ObjectStore, output: S3Uri, claim: Callable[[Index, int], Index]
) -> tuple[Index, Index]:
    """Write the first index of a new epoch, on top of all that were written before.

    Once it is there, whoever still writes in an older epoch is told so by :func:`write`. What was
    written while this one was on its way is found by looking again, and taken over as well: no run
    is told that its index counts, and then finds it gone.

    Args:
        store: where.
        output: the output.
        claim: makes the index of the new epoch from the one before and a number.

    Returns:
        The index before, and the one that was written.
    """
    base = newest(store, output) or EMPTY
    for number in range(_TRIES):
        index = claim(base, number)
        older = [name for name in write(store, output, index) if epoch_of(name) < index.epoch]
        if not older or older[-1] == base.name:
            return base, index
        with suppress(ObjectMissing):  # a newer run has taken over meanwhile: write() will tell
            base = _named(store, output, older[-1])
    raise StorageError(f"{output}: it is written too often to be taken over", "Try again.")


def _named(store: ObjectStore, output: S3Uri, name: str) -> Index:
    uri = output / INDEXES / name
    content = store.read(uri)
    try:
        index = Index.from_bytes(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri} is no index of a run: {error}", _DAMAGED) from error
    if index.name != name:
        raise DataError(f"{uri} says that it is {index.name}", _DAMAGED)
    return index


def read(store: ObjectStore, output: S3Uri) -> Index:
    """Return what an output holds, for those who only read.

    Raises:
        NoRun: no run has written to it.
        DataError: its index is damaged or gone.
    """
    index = newest(store, output)
    if index is None:
        if any(True for _ in store.list(output / RUNS)):
            raise DataError(f"{output} holds files of a run, but no index of them", _LOST)
        raise NoRun(f"{output} holds no run", "Give the output of a run, as its manifest has it.")
    return index
