"""What an output in S3 holds: sending files, naming them in an index, removing what none names."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from job.errors import DataError, ObjectChanged, ObjectMissing, StorageError
from job.storage.local import REPORTS
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
# Runs that are remembered, so that what they left without an index is removed.
_RUNS_KNOWN = 50

Say = Callable[[str], None]


class Contents:
    """What an output in S3 holds, as the newest index has it.

    Args:
        uri: the output.
        store: how to get there.
        run: the name of this run.
        say: is told of what a person should know.
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
        """Read what is there, without the right to write."""
        self._know(newest(self.store, self.uri) or EMPTY)

    def take_over(self, lease: Lease) -> Index:
        """Write the first index of a lease, and return the one that was found.

        From here on no older run can write. What such runs left without an index is removed.

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
        """Make the output hold these files, and no others; nothing is sent that is there.

        A stage of which a file is neither here nor there is left out: it runs again when needed.

        Args:
            kept: the files by path.
            lease: the right to do so.

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
        # What stages of earlier runs printed is not fetched, and stays.
        files |= {p: e for p, e in self.index.files.items() if is_log(p) and p not in files}
        if files != self.index.files:
            self._write(replace(self.index.holding(files), number=self._number), lease)

    def fetch(self, paths: Iterable[str], root: Path) -> None:
        """Download files into their places below a folder, several at a time.

        Raises:
            DataError: a file is not what the index says.
            OSError: it cannot be written.
        """

        def one(path: str) -> None:
            if path not in self.index.files:
                raise ObjectMissing(f"{self.uri / path} is gone")
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
                "Run again with --from the stage that leaves that folder: data/ is of prepare, "
                "fp32/ of baseline, qat_fake/ of convert, the others of the stage of their name.",
            ) from error

    @property
    def strays(self) -> int:
        """How many objects lie among those of runs, of no run that the index knows."""
        return sum(where.split("/")[1] not in self.index.runs for where in self._stored)

    def lost(self, kept: Mapping[str, Kept]) -> set[str]:
        """Return the folders of which a file is neither there nor, as it was published, here."""
        there = {entry.content for entry in self.index.entries}
        return {
            path.partition("/")[0]
            for path, file in kept.items()
            if file.content not in there and not file.is_here()
        }

    def _send(self, path: str, file: Kept) -> tuple[tuple[str, int], IndexEntry]:
        """Upload a file under a name that no other has."""
        where = f"{RUNS}/{self.run}/{self._number}/{path}"
        self.store.upload(self.uri / where, file.path, sha256=file.sha256, length=file.bytes)
        return file.content, IndexEntry(where, file.bytes, file.sha256)

    def _write(self, index: Index, lease: Lease) -> None:
        """Write an index and, once it is the newest, remove what only older ones named."""
        lease.verify()
        try:
            older = write(self.store, self.uri, index)
        except ObjectChanged:
            lease.verify()
            raise
        named = {entry.object for entry in index.entries}
        gone = {entry.object for entry in self.index.entries} - named
        self.index = index
        self._clean([*sorted(gone), *(f"{INDEXES}/{name}" for name in older)])

    def _know(self, base: Index) -> None:
        """Take an index for the truth, but for files, or a result, whose objects are gone."""
        self._stored = {
            found.uri.key.removeprefix(self.uri.below): found.bytes
            for found in self.store.list(self.uri / RUNS)
        }
        there = {path: entry for path, entry in base.files.items() if self._has(entry)}
        if len(there) < len(base.files):
            there = {path: entry for path, entry in there.items() if path not in REPORTS}
        known = base.holding(there)
        whole = all(map(self._has, known.before.values()))
        self.index = known if whole else replace(known, before={})

    def _has(self, entry: IndexEntry) -> bool:
        return self._stored.get(entry.object) == entry.bytes

    def _sweep(self, base: Index) -> None:
        """Remove what runs before this one left and no index names.

        Only below the prefixes of runs that the index knows: nothing else is the job's.
        """
        known = {f"{RUNS}/{run}" for run in base.runs}
        named = {entry.object for entry in self.index.entries}

        def left(where: str) -> bool:
            return "/".join(where.split("/")[:2]) in known and where not in named

        older = [name for name in names(self.store, self.uri) if name < self.index.name]
        self._clean([*filter(left, self._stored), *(f"{INDEXES}/{name}" for name in older)])
        with suppress(StorageError):  # not every store lists unfinished uploads
            self.store.abort_unfinished(
                self.uri / RUNS, lambda key: left(key.removeprefix(self.uri.below))
            )

    def _clean(self, objects: Iterable[str]) -> None:
        """Remove what no index names any longer; what stays is removed by a later run."""
        try:
            self.store.delete([self.uri / where for where in objects])
        except StorageError as error:
            self.say(f"superseded objects could not be removed: {error.message}")
