"""The output folder of a run on a local disk.

    <output>/manifest.json  what the run is made from, with defaults and overrides
    <output>/report.json    with report.md and report.html, once the run is complete
    <output>/<leaves>/      what a stage left, with its stage.json; appears with one rename
    <output>/logs/          what each stage's process printed
    <output>/.partial/      unfinished stages with their checkpoints
    <output>/.lock          with .digests.json and .report.json, for the job itself

``stage.json`` is written last, so a folder that has one is whole.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.errors import JobError, OutputError
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
# What a stage resumes from, in its folder; never published.
RESUME = "checkpoints"
MANIFEST = "manifest.json"
# The last one is written last: where it is, the others are.
REPORTS = ("report.json", "report.md", "report.html", ".report.json")
# Why the last run ended without a report, unless the next one goes on from there.
FAILURE = "failure.json"
# Which state of an output in S3 the folder stands for.
S3_STATE = ".s3.json"


@dataclass(frozen=True)
class Published:
    """What a stage left behind and how it came to be.

    Attributes:
        path: the published folder.
        stage: the stage's name.
        key: its key.
        ingredients: what the key was made of.
        seconds: how long the stage took.
        finished_at: when it ended, ISO 8601 in UTC.
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
        """Say which file is not as it was published, or return None.

        Size and time are compared; content only where the time alone differs.
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

    # How much of the time to stop in a stage may take to save its state.
    saving_share = 1.0

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.partials = self.root / ".partial"
        self.logs = self.root / "logs"
        self.digests = Digests(self.root / ".digests.json")

    @contextmanager
    def locked(self, *, stages: bool = True) -> Iterator[int]:
        """Create the folder and keep other runs out.

        Args:
            stages: False for the folder of a matrix, whose models have stages in their own.

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
        """Return what a stage left in a folder; None when there is nothing whole."""
        path = self.root / output_dir
        document = read_json(path / STAGE_FILE)
        known = [field.name for field in fields(Published) if field.name != "path"]
        if not isinstance(document, dict) or not document.keys() >= set(known):
            return None  # a version of the job that kept other fields wrote it
        return Published(path=path, **{name: document[name] for name in known})

    def damage(self, published: Published) -> str | None:
        """Say which file is not as it was published, or return None."""
        return published.damage(self.digests)

    def display_path(self, output_dir: str) -> Path | S3Uri:
        """Return where something is, as a person knows it."""
        return self.root / output_dir

    def download(self, output_dir: Iterable[str]) -> None:
        """Make sure that all files of published folders are at hand."""

    def check(self) -> None:
        """Make sure that this run may still write.

        Raises:
            JobError: it may not.
        """

    def sync(self, stop: StopSignals, grace_seconds: float) -> None:
        """Bring what is new to where it outlives this machine; nowhere for a local folder.

        Args:
            stop: where signals are kept meanwhile.
            grace_seconds: how long it may take after a signal.
        """

    def partial(self, stage: str, key: str) -> tuple[Path, bool]:
        """Return the folder of an unfinished stage, and whether work with this key is in it.

        Work that was begun with another key is thrown away.
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
        """Make a finished stage's folder visible under its own name, whole or not at all.

        Args:
            stage: the stage's name.
            leaves: the folder that it leaves.
            ingredients: what its key was made of.
            seconds: how long it took.
            record: what it returned.
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
        self._show(path, output_dir)
        return result

    def unfinished(self, stage: str, key: str) -> bool:
        """Tell whether work of an interrupted run with this key can be gone on with."""
        begun = self.partials / stage / KEY_FILE
        return (
            begun.is_file()
            and begun.read_text(encoding="ascii") == key
            and any(path.is_file() for path in (begun.parent / RESUME).rglob("*"))
        )

    def check_ours(self, folders: Sequence[str]) -> None:
        """Refuse a folder in which something that the run would replace is not the job's.

        Args:
            folders: what the stages leave.

        Raises:
            OutputError: naming what stands in the way.
        """
        if is_our_lock(self.root) or any(
            self._left_by_a_stage(output_dir) for output_dir in folders
        ):
            return
        for name in (*folders, *REPORTS, MANIFEST, "logs"):
            if os.path.lexists(self.root / name):
                raise OutputError(
                    f"{self.root / name} is there already and was not made by job",
                    "Choose an empty or new folder.",
                )

    def _left_by_a_stage(self, output_dir: str) -> bool:
        """Tell a stage's record, of whichever version of the job, from a file of that name."""
        document = read_json(self.root / output_dir / STAGE_FILE)
        return isinstance(document, dict) and document.keys() >= {"stage", "key", "files"}

    def recover(self, stages: Iterable[tuple[str, str]]) -> None:
        """Publish stages that were finished when a run was killed in the middle of publishing.

        Args:
            stages: (name, leaves) of each stage.
        """
        for stage, output_dir in stages:
            path = self.partials / stage
            if (path / STAGE_FILE).is_file():
                self._show(path, output_dir)
            _tidy(self.root / output_dir)
            remove(self._aside(output_dir))

    def retract(self) -> None:
        """Remove the report: from here on it would describe another run."""
        for name in REPORTS:
            (self.root / name).unlink(missing_ok=True)

    def keep_manifest(self, resolved: Mapping[str, Any]) -> None:
        """Write down what the folder is made from, before anything in it changes."""
        if read_json(self.root / MANIFEST) != resolved:
            write_json(self.root / MANIFEST, resolved)

    def note_failure(self, error: JobError | None, resolved: Mapping[str, Any]) -> None:
        """Write down why a run ends without a report, for those who join it with others.

        Args:
            error: what ends it; None while that is not known.
            resolved: the manifest that it ran.
        """
        if error is None:
            (self.root / FAILURE).unlink(missing_ok=True)
            return
        told = {"message": str(error), "exit_code": error.exit_code, "manifest": resolved}
        write_json(self.root / FAILURE, told)

    def save_digests(self) -> None:
        """Keep the digests of this run's files for the next one."""
        if self.digests.changed:
            write_json(self.digests.store, self.digests.as_json())

    def _show(self, path: Path, output_dir: str) -> None:
        """Rename a whole folder to its place; what stood there goes first aside, then away."""
        self.retract()
        target, aside = self.root / output_dir, self._aside(output_dir)
        remove(aside)
        if target.exists():
            target.rename(aside)
        path.rename(target)
        sync(self.root)
        # Only now is the stage safe: what it would resume from must not go before.
        _tidy(target)
        remove(aside)

    def _aside(self, output_dir: str) -> Path:
        return self.partials / f".old-{output_dir}"


def remove(path: Path) -> None:
    """Remove a folder and all below it, if it is there."""
    if path.exists():
        shutil.rmtree(path)


def _tidy(published: Path) -> None:
    """Remove from a published folder what an unfinished one needs."""
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
    """Yield name and identity of each file to publish, once it is on the disk."""
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
