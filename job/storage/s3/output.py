"""An output in S3: a local folder for the stages, and objects that an index lists.

The local folder has the same layout as a local output. It may be deleted between runs. Its files
are uploaded when a stage finishes, when a checkpoint is written and when the run ends. The index is
written last. On another machine, only the stages' records are downloaded at the start. Other files
are downloaded when a stage reads them.
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
from job.events import Say
from job.process.signals import StopSignals, stopped
from job.storage.digests import hash_file
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
from job.storage.s3.contents import Contents
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
from job.text_format import plural
from job.uri import S3Uri

_PINS = ".pins"
_WATCH_SECONDS = 1.0
_POLL_SECONDS = 0.1
_CHECKPOINT_RETRY_SECONDS = 10.0


class S3Output(LocalOutput):
    """An output in S3.

    Args:
        uri: the output.
        store: access to S3.
        scratch: the local folder, used only for this output.
        lease_seconds: time for which a killed run keeps the output locked.
        say: callback for messages to the user.
    """

    # The rest of the time is for the upload.
    saving_share = 0.6
    keeps_report = True

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
        """Lock the output in S3 and the local folder, and take over the files of the output.

        Args:
            stages: see :meth:`LocalOutput.locked`.

        Raises:
            OutputError: another run writes to the output.
            StorageError: S3 cannot be reached, or rejects a request.
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
        """Download the records into an empty folder, without a lock."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.contents.read_only()
        self._start_from()

    def display_path(self, output_dir: str) -> Path | S3Uri:
        """Return the URI of an output folder to show to the user."""
        return self.uri / output_dir

    @property
    def has_report(self) -> bool:
        """Whether the output contains the whole report of its last run."""
        return self.contents.index.complete

    def damage(self, published: Published) -> str | None:
        """Return a sentence on the first file that is damaged here and in S3, or None.

        If only the file on this machine is damaged, it is removed and downloaded when needed.
        """
        for name, entry in published.files.items():
            alone = replace(published, files={name: entry})
            damage = alone.damage(self.digests)
            if damage is None:
                continue
            stored = self.contents.index.files.get(f"{published.path.name}/{name}")
            if stored is None or stored.content != (entry["sha256"], entry["bytes"]):
                return damage
            (published.path / name).unlink(missing_ok=True)
        return None

    def download(self, output_dir: Iterable[str]) -> None:
        """Download the files of published folders that are not on this machine.

        Raises:
            DataError: an object is missing or differs from the index.
        """
        missing = {}
        for folder in output_dir:
            for name, entry in read_json(self.root / folder / STAGE_FILE)["files"].items():
                if not (self.root / folder / name).exists():
                    missing[f"{folder}/{name}"] = entry["mtime_ns"]
        self._get(missing)
        for path, mtime_ns in missing.items():
            # A file with its published size and time counts as unchanged without being read.
            os.utime(self.root / path, ns=(mtime_ns, mtime_ns))

    def unfinished(self, stage: str, key: str) -> bool:
        """Return whether a stage with this cache key can resume the work of an interrupted run."""
        return super().unfinished(stage, key) or self._unfinished_in_s3(stage, key)

    def partial(self, stage: str, key: str) -> tuple[Path, bool]:
        """Return the folder of an unfinished stage, downloaded if only S3 has it."""
        with self._changing:
            # The report does not describe the files that are uploaded from here on.
            self.retract()
            if not super().unfinished(stage, key) and self._unfinished_in_s3(stage, key):
                self._fetch_unfinished(stage)
            path = self.partials / stage
            if super().unfinished(stage, key):
                remove_temporary(path)
                return path, True
            remove(path)
            return super().partial(stage, key)

    def keep_manifest(self, resolved: Mapping[str, Any]) -> None:
        """Write the manifest of this run; the report of another manifest is removed first."""
        with self._changing:
            if read_json(self.root / MANIFEST) != resolved:
                self.retract()
            super().keep_manifest(resolved)

    def recover(self, stages: Iterable[tuple[str, str]]) -> None:
        """Publish finished stages of a killed run in the local folder."""
        with self._changing:
            super().recover(stages)

    def publish(self, *args: Any, **values: Any) -> Published:
        """Publish a finished stage in the local folder; :meth:`sync` uploads it."""
        with self._changing:
            return super().publish(*args, **values)

    def check(self) -> None:
        """Check that this run still holds the lease of the output.

        Raises:
            OutputError: another run has taken over.
            JobError: an upload in the background failed.
        """
        if self._failure is not None:
            raise self._failure
        if self._lease is not None and self._lease.lost:
            self._lease.verify()

    def sync(self, stop: StopSignals, grace_seconds: float) -> None:
        """Upload new files to S3, and then the index that lists them.

        Args:
            stop: receives signals during the upload.
            grace_seconds: how long stopping may take in total after a signal.

        Raises:
            OutputError: another run has taken over; the index is not written.
            StorageError: S3 cannot be reached, or rejects a request.
            Stopped: a signal was received, and the upload did not finish in time.
        """
        with stop.deferred():
            sending = Background(lambda: self._commit(self.store))
            while not sending.done_within(_POLL_SECONDS):
                if stop.received and stop.seconds_since > grace_seconds - RELEASE_SECONDS:
                    raise stopped(stop.received[0], during=f"while {self.uri} was written")

    def _commit(self, store: ObjectStore) -> None:
        if self._lease is None:
            raise AssertionError("cannot write to an output that is not locked")
        with self._changing, output_errors(self.root):
            self.contents.store = store
            self.contents.put(snapshot(self.root, self.root / _PINS), self._lease)
            remove(self.root / _PINS)
            write_json(self.root / S3_STATE, self.contents.index.state)

    def _take_over(self, lease: Lease) -> None:
        """Start from the newest index, or from the local folder if the index is empty."""
        base = self.contents.take_over(lease)
        if not self.contents.index.entries:
            if stages := len([*self.root.glob(f"*/{STAGE_FILE}")]):
                self.say(
                    f"{self.uri} has no index of a run; "
                    f"uploading {plural(stages, 'finished stage')} from this machine"
                )
            if strays := self.contents.strays:
                self.say(
                    f"keeping {plural(strays, 'object')} below {self.uri / RUNS}, which no index "
                    "lists"
                )
        elif read_json(self.root / S3_STATE) != base.state:
            self._start_from()
        if self.contents.lost(dict(published_files(self.root))):
            self.retract()
        write_json(self.root / S3_STATE, self.contents.index.state)

    def _start_from(self) -> None:
        """Remove files from the local folder that the index does not list; download the records."""
        files = self.contents.index.files
        (self.root / S3_STATE).unlink(missing_ok=True)
        for stage_file in self.root.glob(f"*/{STAGE_FILE}"):
            entry = files.get(f"{stage_file.parent.name}/{STAGE_FILE}")
            if entry is None or entry.sha256 != hash_file(stage_file):
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

    def _unfinished_in_s3(self, stage: str, key: str) -> bool:
        entry = self.contents.index.files.get(key_path(stage))
        return entry is not None and entry.sha256 == hashlib.sha256(key.encode()).hexdigest()

    def _fetch_unfinished(self, stage: str) -> None:
        """Download the unfinished work of a stage; a damaged checkpoint is reported and skipped."""
        remove(self.partials / stage)
        for path in unfinished_files(stage, self.contents.index.files):
            try:
                self._get([path])
            except DataError as error:
                if not is_checkpoint(path):
                    self.say(f"{stage} cannot resume and starts again: {error.message}")
                    remove(self.partials / stage)
                    return
                self.say(f"skipping a damaged checkpoint: {error.message}")

    def _watch(self, ended: threading.Event) -> None:
        """Upload unfinished work whenever a stage has written a checkpoint."""
        sent: frozenset[tuple[str, int]] = frozenset()
        failing = False
        while not ended.wait(_WATCH_SECONDS):
            written = checkpoints(self.root)
            if written <= sent:
                continue
            try:
                # An upload holds a lock that the run needs, so it must not wait for the server.
                self._commit(self.store.retrying(_CHECKPOINT_RETRY_SECONDS))
            except StorageError as error:
                if not failing:
                    self.say(
                        f"cannot upload a checkpoint; the upload is retried later: {error.message}"
                    )
                failing = True
            except BaseException as error:
                if not ended.is_set():
                    self._failure = error
                return
            else:
                sent, failing = written, False
