"""An output in S3: worked on in a local folder, kept in objects that an index names.

The local folder is an ordinary output folder, which may be lost at any time. What it holds is sent
to S3 whenever a stage is finished, a checkpoint is written or the run ends; the index that names it
is written last. On a fresh machine only the stages' records are fetched; files follow when a stage
that runs reads them.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.errors import ObjectChanged, ObjectMissing, OutputError, StorageError
from job.signals import StopSignals, stopped
from job.storage.files import output_errors, read_json, write_json
from job.storage.index import INDEXES, RUNS, Entry, Index, names, newest
from job.storage.lease import RELEASE_SECONDS, Lease, acquire, new_run, renewed
from job.storage.local import MANIFEST, STAGE_FILE, LocalOutput, Published, remove
from job.storage.parallel import Background, each
from job.storage.s3 import ObjectStore
from job.storage.snapshot import (
    Kept,
    checkpoints,
    is_checkpoint,
    is_log,
    is_record,
    key_path,
    snapshot,
    unfinished_files,
)
from job.storage.uri import S3Uri

_STATE = ".s3.json"
_PINS = ".pins"
# Runs that are remembered, so that what they left without an index is removed.
_RUNS_KNOWN = 50
_THREADS = 4
_WATCH_SECONDS = 1.0
_POLL_SECONDS = 0.1

Say = Callable[[str], None]


class S3Output(LocalOutput):
    """An output in S3.

    Args:
        uri: where it is.
        store: how to get there.
        scratch: the local folder; of this output alone.
        lease_seconds: how long a run that died keeps others out.
        say: is told of what a person should know.
    """

    # The rest is for sending it.
    saving_share = 0.6

    def __init__(
        self, uri: S3Uri, store: ObjectStore, scratch: Path, *, lease_seconds: float, say: Say
    ) -> None:
        super().__init__(scratch)
        self.uri = uri
        self.store = store
        self.lease_seconds = lease_seconds
        self.say = say
        self.run = new_run()
        self.index = Index(0, 0)
        self._lease: Lease | None = None
        self._stored: dict[str, int] = {}
        self._changing = threading.RLock()
        self._commits = 0
        self._failure: BaseException | None = None

    @contextmanager
    def locked(self, *, stages: bool = True) -> Iterator[int]:
        """Keep other runs out, here and everywhere, and take over what the output holds.

        Raises:
            OutputError: another run writes there.
            StorageError: S3 cannot be reached, or refuses.
        """
        lease = acquire(
            self.store, self.uri, run=self.run, lease_seconds=self.lease_seconds, say=self.say
        )
        ended = threading.Event()
        with renewed(lease), super().locked(stages=stages) as descriptor:
            self._lease = lease
            self._take_over(lease)
            threading.Thread(target=self._watch, args=(ended,), name="keep", daemon=True).start()
            try:
                yield descriptor
            finally:
                ended.set()

    def look(self) -> None:
        """Fetch the records into an empty folder, for those who only look; nothing is locked."""
        base = newest(self.store, self.uri) or Index(0, 0)
        self.root.mkdir(parents=True, exist_ok=True)
        self._know(base)
        self._start_from(self.index)

    def shown(self, leaves: str) -> Path | S3Uri:
        """Return where something is, as a person knows it."""
        return self.uri / leaves

    def damage(self, published: Published) -> str | None:
        """Say which file is neither here nor in S3 as it was published, or return None.

        What is wrong here and right in S3 is removed here, to be fetched when it is needed.
        """
        for name, entry in published.files.items():
            alone = replace(published, files={name: entry})
            found = alone.damage(self.digests)
            if found is None:
                continue
            kept = self.index.files.get(f"{published.path.name}/{name}")
            if kept is None or kept.content != (entry["sha256"], entry["bytes"]):
                return found
            (published.path / name).unlink(missing_ok=True)
        return None

    def bring(self, leaves: Iterable[str]) -> None:
        """Fetch the files of published folders that are not here yet.

        Raises:
            OutputError: a file in S3 is not what the index says.
        """
        wanted = {}
        for folder in leaves:
            for name, entry in read_json(self.root / folder / STAGE_FILE)["files"].items():
                if not (self.root / folder / name).exists():
                    wanted[f"{folder}/{name}"] = entry["mtime_ns"]
        self._fetch(wanted)
        for path, mtime_ns in wanted.items():
            # As published: a file of that size and time need not be read again to be trusted.
            os.utime(self.root / path, ns=(mtime_ns, mtime_ns))

    def unfinished(self, stage: str, key: str) -> bool:
        """Tell whether work of an interrupted run with this key can be gone on with."""
        return super().unfinished(stage, key) or self._unfinished_there(stage, key)

    def partial(self, stage: str, key: str) -> tuple[Path, bool]:
        """Return the folder of an unfinished stage, fetched if only S3 has it."""
        with self._changing:
            if not super().unfinished(stage, key) and self._unfinished_there(stage, key):
                self._fetch_unfinished(stage)
            path = self.partials / stage
            if super().unfinished(stage, key):
                return path, True
            remove(path)
            return super().partial(stage, key)

    def recover(self, stages: Iterable[tuple[str, str]]) -> None:
        """Publish here what a killed run had finished."""
        with self._changing:
            super().recover(stages)

    def publish(self, *args: Any, **values: Any) -> Published:
        """Make a finished stage's folder visible here; :meth:`keep` does so for others."""
        with self._changing:
            return super().publish(*args, **values)

    def check(self) -> None:
        """Make sure that this run may still write.

        Raises:
            OutputError: another run has taken over.
        """
        if self._failure is not None:
            raise self._failure
        if self._lease is not None and self._lease.lost:
            self._lease.verify()

    def keep(self, stop: StopSignals, grace_seconds: float) -> None:
        """Send what is new to S3, and then the index that names it.

        Args:
            stop: where signals are kept meanwhile.
            grace_seconds: how long all of stopping may take after a signal.

        Raises:
            OutputError: another run has taken over; nothing is visible.
            StorageError: S3 cannot be reached, or refuses.
            Stopped: a signal came, and the time after it was too short.
        """
        with stop.deferred():
            sending = Background(self._commit)
            while not sending.done_within(_POLL_SECONDS):
                if stop.seconds_since > grace_seconds - RELEASE_SECONDS:
                    raise stopped(stop.received[0], during=f"while {self.uri} was written")

    def _commit(self) -> None:
        with self._changing, output_errors(self.root):
            self._commits += 1
            kept = snapshot(self.root, self.root / _PINS)
            known = {entry.content: entry for entry in self.index.files.values()}
            new = {
                file.content: (path, file)
                for path, file in kept.items()
                if file.content not in known
            }
            each(lambda named: known.update([self._send(*named)]), new.values(), _THREADS)
            remove(self.root / _PINS)
            files = {path: known[file.content] for path, file in kept.items()}
            # What stages of earlier runs printed is not fetched, and stays.
            files |= {p: e for p, e in self.index.files.items() if is_log(p) and p not in files}
            if files != self.index.files:
                self._write(replace(self.index, number=self._commits, files=files))

    def _send(self, path: str, file: Kept) -> tuple[tuple[str, int], Entry]:
        """Upload a file under a name that no other has."""
        if not file.path.exists():
            raise OutputError(
                f"{self.uri / path} is neither in S3 nor in {self.root}",
                f"Run again with --from the stage that leaves {path.partition('/')[0]}.",
            )
        where = f"{RUNS}/{self.run}/{self._commits}/{path}"
        self.store.upload(self.uri / where, file.path, sha256=file.sha256, length=file.bytes)
        return file.content, Entry(where, file.bytes, file.sha256)

    def _write(self, index: Index) -> None:
        """Write an index and, once it is the newest, remove what only older ones named.

        Raises:
            OutputError: another run has taken over.
        """
        lease = self._lease
        if lease is None:
            raise AssertionError("an output is written that is not locked")
        lease.verify()
        self.store.put(self.uri / INDEXES / index.name, index.as_bytes())
        written = names(self.store, self.uri)
        if written[-1:] != (index.name,):
            lease.verify()
            raise StorageError(
                f"{self.uri}: the store does not list {index.name}, which was just written",
                "Use a store that lists at once what was put there.",
            )
        old = {entry.object for entry in self.index.files.values()}
        self.index = index
        write_json(self.root / _STATE, index.name)
        gone = sorted(old - {entry.object for entry in index.files.values()})
        self._clean(
            [self.uri / where for where in gone]
            + [self.uri / INDEXES / name for name in written if name < index.name]
        )

    def _clean(self, uris: list[S3Uri]) -> None:
        """Remove what no index names any longer; what stays is removed by a later run."""
        try:
            self.store.delete(uris)
        except StorageError as error:
            self.say(f"superseded objects could not be removed: {error.message}")

    def _take_over(self, lease: Lease) -> None:
        """Begin where the newest index stands, and let no older run write after it."""
        base = newest(self.store, self.uri) or Index(0, 0)
        self._know(base)
        if read_json(self.root / _STATE) != base.name:
            self._start_from(self.index)
        named = {entry.run for entry in self.index.files.values()}
        runs = [run for run in base.runs if run in named or run in base.runs[-_RUNS_KNOWN:]]
        self._write(replace(self.index, epoch=lease.epoch, number=0, runs=(*runs, self.run)))
        self._sweep(base)

    def _know(self, base: Index) -> None:
        """Take an index for the truth, but for files whose objects are gone."""
        self._stored = {
            each.uri.key.removeprefix(self.uri.below): each.bytes
            for each in self.store.list(self.uri / RUNS)
        }
        there = {
            path: entry
            for path, entry in base.files.items()
            if self._stored.get(entry.object) == entry.bytes
        }
        self.index = replace(base, files=there)

    def _start_from(self, index: Index) -> None:
        """Make the local folder hold nothing but what an index names, its records at once."""
        (self.root / _STATE).unlink(missing_ok=True)
        for stage_file in self.root.glob(f"*/{STAGE_FILE}"):
            entry = index.files.get(f"{stage_file.parent.name}/{STAGE_FILE}")
            digest = hashlib.sha256(stage_file.read_bytes()).hexdigest()
            if entry is None or entry.sha256 != digest:
                remove(stage_file.parent)
        remove(self.partials)
        self.partials.mkdir(parents=True)
        self.retract()
        (self.root / MANIFEST).unlink(missing_ok=True)
        records = [path for path in index.files if is_record(path)]
        self._fetch([path for path in records if not (self.root / path).exists()])

    def _sweep(self, base: Index) -> None:
        """Remove what runs before this one left and no index names.

        Only below the prefixes of runs that the index knows: nothing else is the job's.
        """
        known = {f"{RUNS}/{run}" for run in base.runs}
        named = {entry.object for entry in self.index.files.values()}

        def left(where: str) -> bool:
            return "/".join(where.split("/")[:2]) in known and where not in named

        self._clean([self.uri / where for where in self._stored if left(where)])
        with suppress(StorageError):  # not every store lists unfinished uploads
            self.store.abort_unfinished(
                self.uri / RUNS, lambda key: left(key.removeprefix(self.uri.below))
            )

    def _fetch(self, paths: Iterable[str]) -> None:
        """Download files of the index into their places, several at a time."""

        def one(path: str) -> None:
            entry, target = self.index.files[path], self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            self.store.download(
                self.uri / entry.object, target, bytes=entry.bytes, sha256=entry.sha256
            )

        with output_errors(self.root):
            try:
                each(one, paths, _THREADS)
            except (ObjectMissing, ObjectChanged) as error:
                raise OutputError(
                    f"{self.uri} is damaged: {error.message}",
                    "Run again with --from the stage that leaves it.",
                ) from error

    def _unfinished_there(self, stage: str, key: str) -> bool:
        entry = self.index.files.get(key_path(stage))
        return entry is not None and entry.sha256 == hashlib.sha256(key.encode()).hexdigest()

    def _fetch_unfinished(self, stage: str) -> None:
        """Fetch a stage's unfinished work; a damaged checkpoint is named and passed over."""
        remove(self.partials / stage)
        for path in unfinished_files(stage, self.index.files):
            try:
                self._fetch([path])
            except OutputError as error:
                if not is_checkpoint(path):
                    self.say(f"unfinished work of {stage} is lost, it begins anew: {error.message}")
                    remove(self.partials / stage)
                    return
                self.say(f"a checkpoint is passed over: {error.message}")

    def _watch(self, ended: threading.Event) -> None:
        """Send unfinished work whenever a stage has written a checkpoint."""
        sent: frozenset[tuple[str, int]] = frozenset()
        failing = False
        while not ended.wait(_WATCH_SECONDS):
            found = checkpoints(self.root)
            if found <= sent:
                continue
            try:
                self._commit()
            except StorageError as error:
                if not failing:
                    self.say(f"a checkpoint could not be sent, going on: {error}")
                failing = True
            except BaseException as error:
                if not ended.is_set():
                    self._failure = error
                return
            else:
                sent, failing = found, False
