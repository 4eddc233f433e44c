"""The files of an output in S3: upload, download, the index, and removal of old objects."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from job.errors import DataError, ObjectChanged, ObjectMissing, StorageError
from job.events import Say
from job.storage.local import DEPLOYS, REPORTS
from job.storage.parallel import each
from job.storage.s3.index import (
    EMPTY,
    INDEXES,
    RUNS,
    Index,
    IndexEntry,
    names,
    newest,
    take_over,
    write,
)
from job.storage.s3.lease import Lease
from job.storage.s3.objects import ObjectStore
from job.storage.s3.snapshot import Kept, is_log
from job.uri import S3Uri

_THREADS = 4
# How many earlier runs an index lists. Their objects without an index entry are removed.
_RUNS_KNOWN = 50


class Contents:
    """The files of an output in S3, according to its newest index.

    Args:
        uri: the output.
        store: access to S3.
        run: the name of this run.
        say: callback for messages to the user.
    """

    def __init__(self, uri: S3Uri, store: ObjectStore, run: str, say: Say) -> None:
        self.uri = uri
        self.store = store
        self.run = run
        self.say = say
        self.index = EMPTY
        self._stored: dict[str, int] = {}
        self._number = 0

    def read_only(self) -> None:
        """Read the newest index, without a lease."""
        self._know(newest(self.store, self.uri) or EMPTY)

    def take_over(self, lease: Lease) -> Index:
        """Write the first index of a lease, and return the index before it.

        After this call, no older run can write. Objects of older runs that no index names are
        removed.

        Args:
            lease: the lease of this run.

        Raises:
            OutputError: another run has taken over.
        """

        def claim(base: Index, number: int) -> Index:
            self._know(base)
            named = {entry.run for entry in self.index.entries}
            runs = [run for run in base.runs if run in named or run in base.runs[-_RUNS_KNOWN:]]
            return replace(self.index, epoch=lease.epoch, number=number, runs=(*runs, self.run))

        try:
            base, self.index = take_over(self.store, self.uri, claim)
        except ObjectChanged:
            lease.verify()
            raise
        self._number = self.index.number
        self._sweep(base)
        return base

    def put(self, kept: Mapping[str, Kept], lease: Lease) -> None:
        """Write an index of exactly these files. Files that are already in S3 are not uploaded.

        A stage is omitted if one of its files is neither on this machine nor in S3. The stage runs
        again when its result is needed.

        Args:
            kept: the files by path.
            lease: the lease of this run.

        Raises:
            OutputError: another run has taken over.
        """
        self._number += 1
        lost = self.lost(kept)
        kept = {path: file for path, file in kept.items() if path.partition("/")[0] not in lost}
        known = {entry.content: entry for entry in self.index.entries}
        new = {file.content: at for at, file in kept.items() if file.content not in known}
        each(lambda at: known.update([self._send(at, kept[at])]), new.values(), _THREADS)
        files = {path: known[file.content] for path, file in kept.items()}
        # Logs of earlier runs are not downloaded, so they are kept here.
        files |= {p: e for p, e in self.index.files.items() if is_log(p) and p not in files}
        if files != self.index.files:
            self._write(replace(self.index.holding(files), number=self._number), lease)

    def fetch(self, paths: Iterable[str], root: Path) -> None:
        """Download files to the same paths below a folder, several at a time.

        Args:
            paths: paths in the output.
            root: the folder.

        Raises:
            DataError: an object is missing or differs from the index.
            OSError: a file cannot be written.
        """

        def one(path: str) -> None:
            if path not in self.index.files:
                raise ObjectMissing(f"{self.uri / path} is not in the index")
            entry, target = self.index.files[path], root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            self.store.download(
                self.uri / entry.object, target, bytes=entry.bytes, sha256=entry.sha256
            )

        try:
            each(one, paths, _THREADS)
        except (ObjectMissing, ObjectChanged) as error:
            raise DataError(
                f"{self.uri} is damaged: {error.message}",
                "Run again with --from STAGE. Stage prepare writes data/, baseline writes fp32/, "
                "convert writes qat_fake/; other folders have the name of their stage.",
            ) from error

    @property
    def strays(self) -> int:
        """The number of objects below ``runs/`` of runs that the index does not list."""
        return sum(where.split("/")[1] not in self.index.runs for where in self._stored)

    def lost(self, kept: Mapping[str, Kept]) -> set[str]:
        """Return the folders with a file that neither S3 nor this machine has as published."""
        in_s3 = {entry.content for entry in self.index.entries}
        return {
            path.partition("/")[0]
            for path, file in kept.items()
            if file.content not in in_s3 and not file.is_here()
        }

    def _send(self, path: str, file: Kept) -> tuple[tuple[str, int], IndexEntry]:
        """Upload a file under an unused name."""
        where = f"{RUNS}/{self.run}/{self._number}/{path}"
        self.store.upload(self.uri / where, file.path, sha256=file.sha256, length=file.bytes)
        return file.content, IndexEntry(where, file.bytes, file.sha256)

    def _write(self, index: Index, lease: Lease) -> None:
        """Write an index and, once it is the newest, remove objects that only older ones name."""
        lease.verify()
        try:
            older = write(self.store, self.uri, index)
        except ObjectChanged:
            lease.verify()
            raise
        named = {entry.object for entry in index.entries}
        unused = {entry.object for entry in self.index.entries} - named
        self.index = index
        self._clean([*sorted(unused), *(f"{INDEXES}/{name}" for name in older)])

    def _know(self, base: Index) -> None:
        """Keep an index, without the files, or the result, whose objects are missing."""
        self._stored = {
            entry.uri.key.removeprefix(self.uri.below): entry.bytes
            for entry in self.store.list(self.uri / RUNS)
        }
        stored = {path: entry for path, entry in base.files.items() if self._has(entry)}
        if len(stored) < len(base.files):
            report = {*DEPLOYS, *REPORTS}
            stored = {path: entry for path, entry in stored.items() if path not in report}
        known = base.holding(stored)
        whole = all(map(self._has, known.before.values()))
        self.index = known if whole else replace(known, before={})

    def _has(self, entry: IndexEntry) -> bool:
        return self._stored.get(entry.object) == entry.bytes

    def _sweep(self, base: Index) -> None:
        """Remove objects of earlier runs that no index names.

        Only the prefixes of runs that the index lists belong to the job.
        """
        known = {f"{RUNS}/{run}" for run in base.runs}
        named = {entry.object for entry in self.index.entries}

        def unused(where: str) -> bool:
            return "/".join(where.split("/")[:2]) in known and where not in named

        older = [name for name in names(self.store, self.uri) if name < self.index.name]
        self._clean([*filter(unused, self._stored), *(f"{INDEXES}/{name}" for name in older)])
        with suppress(StorageError):  # not every store lists unfinished uploads
            self.store.abort_unfinished(
                self.uri / RUNS, lambda key: unused(key.removeprefix(self.uri.below))
            )

    def _clean(self, objects: Iterable[str]) -> None:
        """Remove objects that no index names. A later run retries removals that fail."""
        try:
            self.store.delete([self.uri / where for where in objects])
        except StorageError as error:
            self.say(f"cannot remove superseded objects: {error.message}")
