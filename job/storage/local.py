"""The output folder of a run on a local disk.

    <output>/manifest.json  the manifest of the run, with defaults and overrides
    <output>/report.json    with report.md and report.html, once the run is complete
    <output>/<stage dir>/   the files of a finished stage and stage.json; renamed when complete
    <output>/<model dir>/deploy.json  how to deploy the model; written with the report
    <output>/logs/          the output of each stage's process
    <output>/.partial/      unfinished stages with their checkpoints
    <output>/.lock          internal, like .digests.json and .report.json

``stage.json`` is written last, so a folder with this file is complete.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.errors import JobError, UnusableFolder
from job.process.signals import StopSignals
from job.storage.digests import Digests, hash_file
from job.storage.files import (
    TEMPORARY,
    make_folder,
    output_errors,
    read_json,
    remove_temporary_files,
    sync,
    write_bytes,
    write_json,
)
from job.storage.lock import is_our_lock, locked
from job.uri import S3Uri

STAGE_FILE = "stage.json"
KEY_FILE = ".key"
# The folder of a stage's checkpoints; it is never published.
RESUME = "checkpoints"
MANIFEST = "manifest.json"
# The last file is written last: if it exists, the others are complete.
REPORTS = ("report.json", "report.md", "report.html", ".report.json")
# How to deploy each model; written with the report into the folders of finished stages.
DEPLOYS = tuple(
    f"{folder}/deploy.json"
    for folder in ("fp32", "int8", "int8_paddle_openvino", "int8_openvino", "int8_onnxruntime")
)
LOGS = "logs"
# Unfinished stages of a run, and folders that a rename replaces.
PARTIALS = ".partial"
# The error that ended the last run without a report, unless the next run can resume.
FAILURE = "failure.json"
# The state of the output in S3 that the folder corresponds to.
S3_STATE = ".s3.json"


@dataclass(frozen=True)
class Published:
    """The result of a finished stage.

    Attributes:
        path: the published folder.
        stage: the stage's name.
        key: the stage's cache key.
        ingredients: the values from which the cache key is computed.
        seconds: duration of the stage.
        finished_at: time at which the stage ended, ISO 8601 in UTC.
        files: ``sha256``, ``bytes`` and ``mtime_ns`` of each file by relative path.
        record: the JSON object that the stage returned.
    """

    path: Path
    stage: str
    key: str
    ingredients: Mapping[str, Any]
    seconds: float
    finished_at: str
    files: Mapping[str, Mapping[str, Any]]
    record: Mapping[str, Any]

    def damage(self, digests: Digests) -> str | None:
        """Return a sentence on the first file that is not as published, or None.

        Size and time are compared. Content is compared only if the time alone differs.

        Args:
            digests: checksums of the files.
        """
        for name, entry in self.files.items():
            path = self.path / name
            try:
                stat = path.stat()
            except OSError:
                return f"{self.path.name}/{name} is missing"
            same = (stat.st_size, stat.st_mtime_ns) == (entry["bytes"], entry["mtime_ns"])
            if not same and (
                stat.st_size != entry["bytes"] or digests.sha256(path) != entry["sha256"]
            ):
                return f"{self.path.name}/{name} was changed after the run"
        return None


class LocalOutput:
    """An output folder; nothing is created before :meth:`locked`.

    Args:
        root: the folder.
    """

    # The share of the stop grace period in which a stage may save its state.
    saving_share = 1.0
    # Whether readers find the report of a finished run until a later run has written its report.
    keeps_report = False

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.partials = self.root / PARTIALS
        self.logs = self.root / LOGS
        self.digests = Digests(self.root / ".digests.json")

    @contextmanager
    def locked(self, *, stages: bool = True) -> Iterator[int]:
        """Create the folder and lock it.

        Args:
            stages: False for the folder of a matrix, whose models have folders of their own.

        Yields:
            The lock's file descriptor, for worker processes to inherit.

        Raises:
            OutputError: another run writes here, or the folder cannot be written.
        """
        with output_errors(self.root):
            make_folder(self.root)
            with locked(self.root) as descriptor:
                # After the lock: without one, check_ours takes the folder for a foreign one.
                for folder in (self.partials, self.logs) if stages else ():
                    make_folder(folder)
                remove_temporary_files(
                    self.root, (*REPORTS, MANIFEST, FAILURE, self.digests.store.name, S3_STATE)
                )
                yield descriptor

    def published(self, output_dir: str) -> Published | None:
        """Return the result of a finished stage by its folder; None if there is none."""
        path = self.root / output_dir
        document = read_json(path / STAGE_FILE)
        known = [field.name for field in fields(Published) if field.name != "path"]
        if not isinstance(document, dict) or not document.keys() >= set(known):
            return None  # another version of the job, with other fields, wrote it
        return Published(path=path, **{name: document[name] for name in known})

    @property
    def has_report(self) -> bool:
        """Whether the output contains the whole report of its last run."""
        return (self.root / REPORTS[-1]).is_file()

    def damage(self, published: Published) -> str | None:
        """Return a sentence on the first file that is not as published, or None."""
        return published.damage(self.digests)

    def display_path(self, output_dir: str) -> Path | S3Uri:
        """Return the path or URI of an output folder to show to the user."""
        return self.root / output_dir

    def download(self, output_dir: Iterable[str]) -> None:
        """Download the files of published folders that are not on this machine."""

    def check(self) -> None:
        """Check that this run still holds the lock of the output.

        Raises:
            JobError: the run has lost the lock.
        """

    def sync(self, stop: StopSignals, grace_seconds: float) -> None:
        """Upload new files. For a local folder, do nothing.

        Args:
            stop: receives signals during the upload.
            grace_seconds: how long the upload may take after a signal.
        """

    def partial(self, stage: str, key: str) -> tuple[Path, bool]:
        """Return the folder of an unfinished stage, and whether the stage can resume there.

        Unfinished work with another cache key is removed.
        """
        path = self.partials / stage
        if self.unfinished(stage, key):
            remove_temporary(path)
            return path, True
        remove(path)
        path.mkdir()
        write_bytes(path / KEY_FILE, key.encode("ascii"))
        return path, False

    def publish(
        self,
        stage: str,
        output_dir: str,
        *,
        ingredients: Mapping[str, Any],
        seconds: float,
        record: Mapping[str, Any],
    ) -> Published:
        """Give the folder of a finished stage its final name, by one rename.

        Args:
            stage: the stage's name.
            output_dir: the name of the folder in the output.
            ingredients: the values from which the cache key is computed.
            seconds: how long the stage took.
            record: the JSON object that the stage returned.
        """
        path = self.partials / stage
        remove_temporary(path)
        result = Published(
            path=self.root / output_dir,
            stage=stage,
            key=(path / KEY_FILE).read_text(encoding="ascii"),
            ingredients=ingredients,
            seconds=seconds,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            files=dict(_describe(path)),
            record=record,
        )
        document = {name: value for name, value in vars(result).items() if name != "path"}
        write_json(path / STAGE_FILE, document)
        self._publish(path, output_dir)
        return result

    def unfinished(self, stage: str, key: str) -> bool:
        """Return whether a stage with this cache key can resume the work of an interrupted run."""
        key_file = self.partials / stage / KEY_FILE
        return (
            key_file.is_file()
            and key_file.read_text(encoding="ascii") == key
            and self._has_checkpoint(stage)
        )

    def _has_checkpoint(self, stage: str) -> bool:
        return any(path.is_file() for path in (self.partials / stage / RESUME).rglob("*"))

    def drop_unfinished(self, stage: str) -> None:
        """Remove the work of an interrupted run on a stage, unless it has a checkpoint."""
        if not self._has_checkpoint(stage):
            remove(self.partials / stage)

    def check_ours(self, folders: Sequence[str]) -> None:
        """Check that every file that the run would replace was written by an earlier run.

        Args:
            folders: the output folders of the stages.

        Raises:
            UnusableFolder: names the first such file or folder.
        """
        if is_our_lock(self.root) or any(map(self._is_stage_output, folders)):
            return
        for name in (*folders, *REPORTS, MANIFEST, LOGS):
            if os.path.lexists(self.root / name):
                raise UnusableFolder(
                    f"{self.root / name} already exists and was not written by job",
                    "Choose an empty or new folder.",
                )

    def _is_stage_output(self, output_dir: str) -> bool:
        """Return whether a folder has the stage.json of any version of the job."""
        document = read_json(self.root / output_dir / STAGE_FILE)
        return isinstance(document, dict) and document.keys() >= {"stage", "key", "files"}

    def recover(self, stages: Iterable[tuple[str, str]]) -> None:
        """Publish finished stages of a run that was killed while it published them.

        Args:
            stages: (name, output folder) of each stage.
        """
        for stage, output_dir in stages:
            path = self.partials / stage
            if (path / STAGE_FILE).is_file():
                self._publish(path, output_dir)
            _tidy(self.root / output_dir)
            remove(self._aside(output_dir))

    def retract(self) -> None:
        """Remove the report, because the results that it describes are about to change."""
        for name in (*REPORTS, *DEPLOYS):
            (self.root / name).unlink(missing_ok=True)

    def keep_manifest(self, resolved: Mapping[str, Any]) -> None:
        """Write the manifest of this run, before any result in the folder changes."""
        if read_json(self.root / MANIFEST) != resolved:
            write_json(self.root / MANIFEST, resolved)

    def note_failure(self, error: JobError | None, resolved: Mapping[str, Any]) -> None:
        """Write the error that ends a run without a report; the matrix report reads it.

        Args:
            error: the error; None removes the error of an earlier run.
            resolved: the manifest of this run.
        """
        if error is None:
            (self.root / FAILURE).unlink(missing_ok=True)
            return
        failure = {"message": str(error), "exit_code": error.exit_code, "manifest": resolved}
        write_json(self.root / FAILURE, failure)

    def save_digests(self) -> None:
        """Write the checksums of this run's files for the next run."""
        if self.digests.changed:
            write_json(self.digests.store, self.digests.as_json())

    def _publish(self, path: Path, output_dir: str) -> None:
        """Rename a complete folder to its final name, and remove the one it replaces."""
        self.retract()
        target, aside = self.root / output_dir, self._aside(output_dir)
        remove(aside)
        if target.exists():
            target.rename(aside)
        path.rename(target)
        sync(self.root)
        # The checkpoints are removed only now, because until here the stage might have to resume.
        _tidy(target)
        remove(aside)

    def _aside(self, output_dir: str) -> Path:
        return self.partials / f".old-{output_dir}"


def remove(path: Path) -> None:
    """Remove a folder and everything below it, if it exists."""
    if path.exists():
        shutil.rmtree(path)


def _tidy(published: Path) -> None:
    """Remove the cache key and the checkpoints from a published folder."""
    if (published / STAGE_FILE).is_file():
        (published / KEY_FILE).unlink(missing_ok=True)
        remove(published / RESUME)


def remove_temporary(path: Path) -> None:
    """Remove the temporary files and folders that a killed process left in a stage's folder."""
    for temporary in [*path.rglob(f"*{TEMPORARY}")]:
        if temporary.is_dir():
            remove(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _describe(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Flush each file to publish to the disk, and yield its name, size, time and checksum."""
    for folder, _, names in sorted(os.walk(path)):
        for name in sorted(names):
            file = Path(folder, name)
            relative = str(file.relative_to(path))
            if relative in (KEY_FILE, STAGE_FILE) or relative.startswith(f"{RESUME}/"):
                continue
            sync(file)
            stat = file.stat()
            identity = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            yield relative, {"sha256": hash_file(file), **identity}
        sync(Path(folder))
