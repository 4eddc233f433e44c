"""Download a finished run from S3, or read its report in S3."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import (
    DataError,
    JobError,
    ObjectChanged,
    ObjectMissing,
    UnusableFolder,
    UsageError,
)
from job.events import Say
from job.storage.digests import hash_file
from job.storage.files import output_errors, read_json
from job.storage.local import PARTIALS, STAGE_FILE, LocalOutput
from job.storage.parallel import each
from job.storage.s3 import index
from job.storage.s3.index import IndexEntry
from job.storage.s3.objects import ObjectStore
from job.storage.s3.snapshot import is_record
from job.uri import S3Uri

REPORT_FILE = "report.json"
_TO_ITS_END = "Run the job again with the same command, until it is finished."
_THREADS = 4
_TRIES = 3


@dataclass(frozen=True)
class FetchResult:
    """The result of a download.

    Attributes:
        files: number of files of the run.
        there: number of files that were on this machine before.
        bytes: total size of all files.
    """

    files: int
    there: int
    bytes: int

    def __add__(self, other: "FetchResult") -> "FetchResult":
        return FetchResult(
            self.files + other.files, self.there + other.there, self.bytes + other.bytes
        )


@dataclass(frozen=True)
class _Result:
    """The files of the last finished run.

    Attributes:
        files: by path.
        index: the name of the index that lists them.
        superseded: True if a later run has started, which is not finished.
    """

    files: Mapping[str, IndexEntry]
    index: str
    superseded: bool


def read_report(store: ObjectStore, output: S3Uri, say: Say) -> Mapping[str, Any]:
    """Return report.json of a finished run, verified against the index.

    Args:
        store: access to S3.
        output: the output of the run.
        say: callback for a message if a later run is not finished.

    Raises:
        NoRun: no run has written to the output.
        UsageError: the run is not finished.
        DataError: the report differs from what the run wrote.
    """
    result = _finished(store, output)
    _warn_if_superseded(output, result, say)
    return _report(store, output, result)


def read_file(store: ObjectStore, output: S3Uri, name: str) -> bytes | None:
    """Return a file of a finished run, verified against the index; None if the run has none.

    Args:
        store: access to S3.
        output: the output of the run.
        name: path in the output, with slashes.

    Raises:
        NoRun: no run has written to the output.
        UsageError: the run is not finished.
        DataError: the object differs from what the run wrote.
    """
    entry = _finished(store, output).files.get(name)
    if entry is None:
        return None
    try:
        return store.read(output / entry.object, sha256=entry.sha256)
    except (ObjectMissing, ObjectChanged) as error:
        raise DataError(f"{output} is damaged: {_message(error)}", "Run the job again.") from error


def _report(store: ObjectStore, output: S3Uri, result: _Result) -> Mapping[str, Any]:
    entry = result.files[REPORT_FILE]
    try:
        document = json.loads(store.read(output / entry.object, sha256=entry.sha256))
    except (ObjectMissing, ObjectChanged, ValueError) as error:
        raise DataError(
            f"{output} is damaged: {_message(error)}", "Run the job again with --from report."
        ) from error
    if not isinstance(document, dict):
        raise DataError(f"{output / REPORT_FILE} is not a JSON object", "Run the job again.")
    return document


def read_records(store: ObjectStore, output: S3Uri, names: Sequence[str]) -> Mapping[str, Any]:
    """Return JSON files of an output by name, also of a run that is not finished.

    Args:
        store: access to S3.
        output: the output of the run.
        names: paths in the output. The result does not contain missing files.

    Raises:
        NoRun: no run has written to the output.
        DataError: a file differs from what the run wrote.
    """
    newest = index.read(store, output)
    try:
        return {
            name: json.loads(store.read(output / entry.object, sha256=entry.sha256))
            for name, entry in newest.files.items()
            if name in names
        }
    except (ObjectMissing, ObjectChanged, ValueError) as error:
        raise DataError(
            f"{output} is damaged, or has just changed: {_message(error)}", "Try again in a moment."
        ) from error


def fetch(store: ObjectStore, output: S3Uri, folder: Path, say: Say) -> FetchResult:
    """Download a finished run, or all runs of a matrix, and verify every checksum.

    Each file is downloaded under a temporary name, then renamed. A record is written after the
    files that it describes. Files that are already in the folder are not downloaded again. An
    interrupted download resumes.

    Args:
        store: access to S3.
        output: the output of the run.
        folder: where to put the files; created if missing.
        say: callback for a message if a later run is not finished.

    Raises:
        NoRun: no run has written to the output.
        UsageError: the run is not finished, the folder does not allow writing, or the folder has
            files that no run wrote.
        DataError: an object differs from what the run wrote.
        OutputError: the disk is full, or another process has locked the folder.
    """
    result = _finished(store, output)
    rows = _report(store, output, result).get("matrix", ())
    models = [output / str(row["model"]) for row in rows if row["report"] is not None]
    results = {model: _finished(store, model) for model in models}
    if models and any(each.superseded for each in (result, *results.values())):
        raise UsageError(
            f"{output}: a model is newer than the matrix report, because it is being run again",
            _TO_ITS_END,
        )
    _warn_if_superseded(output, result, say)
    try:
        fetched = _fetch_run(store, output, result, folder)
        for model, model_result in results.items():
            fetched += _fetch_run(store, model, model_result, folder / model.name)
    except UnusableFolder as error:
        # The user gave the folder on the command line. A repetition of the command cannot help.
        raise UsageError(
            error.message, "Give a new or empty folder, in a place that you may write to."
        ) from error
    return fetched


def _fetch_run(store: ObjectStore, output: S3Uri, result: _Result, folder: Path) -> FetchResult:
    local = LocalOutput(folder)
    local.check_ours(sorted({path.partition("/")[0] for path in result.files if "/" in path}))
    with local.locked(stages=False):
        return _fetch_all(store, output, result, local.root)


def _finished(store: ObjectStore, output: S3Uri) -> _Result:
    newest = index.read(store, output)
    if not newest.result:
        # Only a plan with the manifest shows which of these folders are stale.
        folders = [f"{path.partition('/')[0]}/" for path in newest.files if _is_stage(path)]
        found = f"{', '.join(folders)} (a folder can be stale)" if folders else "none"
        raise UsageError(
            f"the run in {output} is not finished; folders of stages: {found}", _TO_ITS_END
        )
    return _Result(newest.result, newest.name, not newest.complete)


def _warn_if_superseded(output: S3Uri, result: _Result, say: Say) -> None:
    if result.superseded:
        say(superseded(output))


def superseded(output: Path | S3Uri) -> str:
    """Return the message that a finished run is not the last run."""
    return f"{output}: a later run is not finished; this is the result of the run before it"


def _message(error: Exception) -> str:
    """Return the message of an error without its hint, which is for other cases."""
    return error.message if isinstance(error, JobError) else str(error)


def _is_stage(path: str) -> bool:
    return is_record(path) and path.endswith(f"/{STAGE_FILE}")


def _fetch_all(store: ObjectStore, output: S3Uri, result: _Result, root: Path) -> FetchResult:
    """Download the files of a run. If a newer run replaces it during the download, start again."""
    for _ in range(_TRIES):
        try:
            return _fetch_files(store, output, result, root)
        except (ObjectMissing, ObjectChanged) as error:
            newer = _finished(store, output)
            if newer.index == result.index:
                raise DataError(
                    f"{output} is damaged, so {root} is incomplete: {error.message}",
                    "Run the job again: it repairs the output. Then fetch it again.",
                ) from error
            result = newer
    raise DataError(f"{output} changed {_TRIES} times during the download", "Try again later.")


def _fetch_files(store: ObjectStore, output: S3Uri, result: _Result, root: Path) -> FetchResult:
    files = {p: entry for p, entry in result.files.items() if not p.startswith(f"{PARTIALS}/")}
    there = {path for path, entry in files.items() if _holds(root / path, entry)}

    def one(path: str) -> None:
        entry, target = files[path], root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        where = output / entry.object
        store.download(where, target, bytes=entry.bytes, sha256=entry.sha256)

    def some(paths: Iterable[str]) -> None:
        each(one, [path for path in paths if path in files and path not in there], _THREADS)

    with output_errors(root):
        stages = [path for path in files if _is_stage(path)]
        some(path for path in files if not is_record(path))
        some(stages)
        for path in stages:
            _keep_times((root / path).parent)
        # A report means that all other files are complete; its last file means that the report is.
        some(path for path in files if not path.startswith(".") and path not in stages)
        some(path for path in files if path.startswith("."))
    return FetchResult(len(files), len(there), sum(entry.bytes for entry in files.values()))


def _holds(path: Path, entry: IndexEntry) -> bool:
    try:
        return path.stat().st_size == entry.bytes and hash_file(path) == entry.sha256
    except OSError:
        return False


def _keep_times(folder: Path) -> None:
    """Set the published times of files, so that a run recognizes unchanged files by them."""
    for name, entry in read_json(folder / STAGE_FILE)["files"].items():
        if not (folder / name).exists():
            raise DataError(f"the run is damaged: {folder / name} is missing", "Run the job again.")
        os.utime(folder / name, ns=(entry["mtime_ns"], entry["mtime_ns"]))
