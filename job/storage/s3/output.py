"""An output in S3: worked on in a local folder, kept in objects that an index names.

The local folder is an ordinary output folder, which may be lost at any time. What it holds is sent
to S3 whenever a stage is finished, a checkpoint is written or the run ends; the index that names it
is written last. On a fresh machine only the stages' records are fetched; files follow when a stage
that runs reads them.
"""

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.errors import DataError, StorageError
from job.process.signals import StopSignals, stopped
from job.storage.files import output_errors, read_json, write_json
from job.storage.local import (
    MANIFEST,
    S3_STATE,
    STAGE_FILE,
    LocalOutput,
    Published,
    remove,
    remove_temporary,
)
from job.storage.parallel import Background
from job.storage.s3.contents import Contents, Say
from job.storage.s3.index import RUNS
from job.storage.s3.lease import RELEASE_SECONDS, Lease, acquire, new_run, renewed
from job.storage.s3.objects import ObjectStore
from job.storage.s3.snapshot import (
    checkpoints,
    is_checkpoint,
    is_record,
    key_path,
    published_files,
    snapshot,
    unfinished_files,
)
from job.uri import S3Uri

_PINS = ".pins"
_WATCH_SECONDS = 1.0
_POLL_SECONDS = 0.1


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
        self.contents = Contents(uri, store, new_run(), say)
        self._lease: Lease | None = None
        self._changing = threading.RLock()
        self._failure: BaseException | None = None

    @contextmanager
    def locked(self, *, stages: bool = True) -> Iterator[int]:
        """Keep other runs out, here and everywhere, and take over what the output holds.

        Raises:
            OutputError: another run writes there.
            StorageError: S3 cannot be reached, or refuses.
        """
        lease = acquire(
            self.store,
            self.uri,
            run=self.contents.run,
            lease_seconds=self.lease_seconds,
            say=self.say,
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

    def read_only(self) -> None:
        """Fetch the records into an empty folder, for those who only look; nothing is locked."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.contents.read_only()
        self._start_from()

    def display_path(self, output_dir: str) -> Path | S3Uri:
        """Return where something is, as a person knows it."""
        return self.uri / output_dir

    def damage(self, published: Published) -> str | None:
        """Say which file is neither here nor in S3 as it was published, or return None.

        What is wrong here and right in S3 is removed here, to be fetched when it is needed.
        """
        for name, entry in published.files.items():
            alone = replace(published, files={name: entry})
            found = alone.damage(self.digests)
            if found is None:
                continue
            kept = self.contents.index.files.get(f"{published.path.name}/{name}")
            if kept is None or kept.content != (entry["sha256"], entry["bytes"]):
                return found
            (published.path / name).unlink(missing_ok=True)
        return None

    def download(self, output_dir: Iterable[str]) -> None:
        """Fetch the files of published folders that are not here yet.

        Raises:
            DataError: a file in S3 is not what the index says.
        """
        wanted = {}
        for folder in output_dir:
            for name, entry in read_json(self.root / folder / STAGE_FILE)["files"].items():
                if not (self.root / folder / name).exists():
                    wanted[f"{folder}/{name}"] = entry["mtime_ns"]
        self._get(wanted)
        for path, mtime_ns in wanted.items():
            # As published: a file of that size and time need not be read again to be trusted.
            os.utime(self.root / path, ns=(mtime_ns, mtime_ns))

    def unfinished(self, stage: str, key: str) -> bool:
        """Tell whether work of an interrupted run with this key can be gone on with."""
        return super().unfinished(stage, key) or self._unfinished_there(stage, key)

    def partial(self, stage: str, key: str) -> tuple[Path, bool]:
        """Return the folder of an unfinished stage, fetched if only S3 has it."""
        with self._changing:
            # What is sent from here on is not the result that the report tells of.
            self.retract()
            if not super().unfinished(stage, key) and self._unfinished_there(stage, key):
                self._fetch_unfinished(stage)
            path = self.partials / stage
            if super().unfinished(stage, key):
                remove_temporary(path)
                return path, True
            remove(path)
            return super().partial(stage, key)

    def keep_manifest(self, resolved: Mapping[str, Any]) -> None:
        """Write down what the output is made from; a report on something else goes first."""
        with self._changing:
            if read_json(self.root / MANIFEST) != resolved:
                self.retract()
            super().keep_manifest(resolved)

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

    def sync(self, stop: StopSignals, grace_seconds: float) -> None:
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
                if stop.received and stop.seconds_since > grace_seconds - RELEASE_SECONDS:
                    raise stopped(stop.received[0], during=f"while {self.uri} was written")

    def _commit(self) -> None:
        if self._lease is None:
            raise AssertionError("an output is written that is not locked")
        with self._changing, output_errors(self.root):
            self.contents.put(snapshot(self.root, self.root / _PINS), self._lease)
            remove(self.root / _PINS)
            write_json(self.root / S3_STATE, self.contents.index.state)

    def _take_over(self, lease: Lease) -> None:
        """Begin where the newest index stands; where it names nothing, with what is here."""
        base = self.contents.take_over(lease)
        if not self.contents.index.entries:
            if kept := len([*self.root.glob(f"*/{STAGE_FILE}")]):
                told = f"{self.uri} has no index of a run"
                self.say(f"{told}; {kept} finished stages on this machine are sent")
            if strays := self.contents.strays:
                self.say(f"{strays} objects below {self.uri / RUNS}, of no index, stay there")
        elif read_json(self.root / S3_STATE) != base.state:
            self._start_from()
        if self.contents.lost(dict(published_files(self.root))):
            self.retract()
        write_json(self.root / S3_STATE, self.contents.index.state)

    def _start_from(self) -> None:
        """Make the local folder hold nothing but what the index names, its records at once."""
        files = self.contents.index.files
        (self.root / S3_STATE).unlink(missing_ok=True)
        for stage_file in self.root.glob(f"*/{STAGE_FILE}"):
            entry = files.get(f"{stage_file.parent.name}/{STAGE_FILE}")
            digest = hashlib.sha256(stage_file.read_bytes()).hexdigest()
            if entry is None or entry.sha256 != digest:
                remove(stage_file.parent)
        remove(self.partials)
        self.partials.mkdir(parents=True)
        self.retract()
        (self.root / MANIFEST).unlink(missing_ok=True)
        records = [path for path in files if is_record(path)]
        self._get([path for path in records if not (self.root / path).exists()])

    def _get(self, paths: Iterable[str]) -> None:
        with output_errors(self.root):
            self.contents.fetch(paths, self.root)

    def _unfinished_there(self, stage: str, key: str) -> bool:
        entry = self.contents.index.files.get(key_path(stage))
        return entry is not None and entry.sha256 == hashlib.sha256(key.encode()).hexdigest()

    def _fetch_unfinished(self, stage: str) -> None:
        """Fetch a stage's unfinished work; a damaged checkpoint is named and passed over."""
        remove(self.partials / stage)
        for path in unfinished_files(stage, self.contents.index.files):
            try:
                self._get([path])
            except DataError as error:
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
                    self.say(f"a checkpoint could not be sent, going on: {error.message}")
                failing = True
            except BaseException as error:
                if not ended.is_set():
                    self._failure = error
                return
            else:
                sent, failing = found, False
