"""A finished run in S3, brought to a local folder or read in place."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import DataError, JobError, ObjectChanged, ObjectMissing, UsageError
from job.storage.digests import hash_file
from job.storage.files import output_errors, read_json
from job.storage.local import STAGE_FILE, LocalOutput
from job.storage.parallel import each
from job.storage.s3 import index
from job.storage.s3.index import IndexEntry
from job.storage.s3.objects import ObjectStore
from job.storage.s3.snapshot import PARTIALS, is_record
from job.uri import S3Uri

REPORT_FILE = "report.json"
_TO_ITS_END = "Run the job to its end, with the same command."
_THREADS = 4
_TRIES = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class FetchResult:
    """What came of it: files in all, those that were there already, and the bytes of all."""

    files: int
    there: int
    bytes: int

    def __add__(self, other: "FetchResult") -> "FetchResult":
        return FetchResult(
            self.files + other.files, self.there + other.there, self.bytes + other.bytes
        )


@dataclass(frozen=True)
class _Result:
    """The files of the last finished run, the index that names them, and whether it is old."""

    files: Mapping[str, IndexEntry]
    index: str
    superseded: bool


def read_report(store: ObjectStore, output: S3Uri, say: Say) -> Mapping[str, Any]:
    """Return a finished run's report.json, checked against the index.

    Args:
        store: where.
        output: of the run.
        say: is told if a later run has begun, which is not finished.

    Raises:
        NoRun: no run has written there.
        UsageError: the run is not finished.
        DataError: the report is not what the run wrote.
    """
    found = _finished(store, output)
    _tell(output, found, say)
    return _report(store, output, found)


def _report(store: ObjectStore, output: S3Uri, found: _Result) -> Mapping[str, Any]:
    entry = found.files[REPORT_FILE]
    try:
        document = json.loads(store.read(output / entry.object, sha256=entry.sha256))
    except (ObjectMissing, ObjectChanged, ValueError) as error:
        raise DataError(
            f"{output} is damaged: {_what(error)}", "Run the job again with --from report."
        ) from error
    if not isinstance(document, dict):
        raise DataError(f"{output / REPORT_FILE} is not a JSON object", "Run the job again.")
    return document


def read_records(store: ObjectStore, output: S3Uri, names: Sequence[str]) -> Mapping[str, Any]:
    """Return the JSON files of an output that are there, finished or not, by name.

    Raises:
        NoRun: no run has written there.
        DataError: one of them is not what the run wrote.
    """
    found = index.read(store, output)
    try:
        return {
            name: json.loads(store.read(output / entry.object, sha256=entry.sha256))
            for name, entry in found.files.items()
            if name in names
        }
    except (ObjectMissing, ObjectChanged, ValueError) as error:
        raise DataError(
            f"{output} is damaged, or has just changed: {_what(error)}", "Try again in a moment."
        ) from error


def fetch(store: ObjectStore, output: S3Uri, folder: Path, say: Say) -> FetchResult:
    """Bring a finished run, or all runs of a matrix, to a folder; every digest is checked.

    Each file appears whole or not at all, records after what they describe. What is there already
    is not fetched again, and a broken transfer goes on where it stopped.

    Args:
        store: where.
        output: of the run.
        folder: made when missing.
        say: is told if a later run has begun, which is not finished.

    Raises:
        NoRun: no run has written there.
        UsageError: the run is not finished.
        DataError: an object is not what the run wrote.
        OutputError: the folder cannot be written, or holds something else.
    """
    found = _finished(store, output)
    told = _report(store, output, found).get("matrix", ())
    models = [output / str(each["model"]) for each in told if each["report"] is not None]
    results = {model: _finished(store, model) for model in models}
    if models and any(each.superseded for each in (found, *results.values())):
        raise UsageError(
            f"{output}: its models are being run again; some are newer than the report on them all",
            _TO_ITS_END,
        )
    _tell(output, found, say)
    done = _fetch_run(store, output, found, folder)
    for model, result in results.items():
        done += _fetch_run(store, model, result, folder / model.name)
    return done


def _fetch_run(store: ObjectStore, output: S3Uri, found: _Result, folder: Path) -> FetchResult:
    local = LocalOutput(folder)
    local.check_ours(sorted({path.partition("/")[0] for path in found.files if "/" in path}))
    with local.locked(stages=False):
        return _fetch_all(store, output, found, local.root)


def _finished(store: ObjectStore, output: S3Uri) -> _Result:
    found = index.read(store, output)
    if not found.result:
        stages = [path.partition("/")[0] for path in found.files if _is_stage(path)]
        raise UsageError(
            f"{output} holds a run that is not finished; it has {', '.join(stages) or 'nothing'}",
            _TO_ITS_END,
        )
    return _Result(found.result, found.name, not found.complete)


def _tell(output: S3Uri, found: _Result, say: Say) -> None:
    if found.superseded:
        say(f"{output}: a later run is not finished; this is the result of the one before it")


def _what(error: Exception) -> str:
    """Return what is wrong, without the advice for other cases."""
    return error.message if isinstance(error, JobError) else str(error)


def _is_stage(path: str) -> bool:
    return is_record(path) and path.endswith(f"/{STAGE_FILE}")


def _fetch_all(store: ObjectStore, output: S3Uri, found: _Result, root: Path) -> FetchResult:
    """Fetch what an index names; should a newer run replace it meanwhile, what that one names."""
    for _ in range(_TRIES):
        try:
            return _fetch_files(store, output, found, root)
        except (ObjectMissing, ObjectChanged) as error:
            newer = _finished(store, output)
            if newer.index == found.index:
                raise DataError(
                    f"{output} is damaged: {error.message}",
                    "Run the job again with --from the stage that leaves it.",
                ) from error
            found = newer
    raise DataError(f"{output} changes faster than it can be fetched", "Try again later.")


def _fetch_files(store: ObjectStore, output: S3Uri, found: _Result, root: Path) -> FetchResult:
    files = {p: entry for p, entry in found.files.items() if not p.startswith(f"{PARTIALS}/")}
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
        # A report says that all the rest is there; the last of its files says so of the report.
        some(path for path in files if not path.startswith(".") and path not in stages)
        some(path for path in files if path.startswith("."))
    return FetchResult(len(files), len(there), sum(entry.bytes for entry in files.values()))


def _holds(path: Path, entry: IndexEntry) -> bool:
    try:
        return path.stat().st_size == entry.bytes and hash_file(path) == entry.sha256
    except OSError:
        return False


def _keep_times(folder: Path) -> None:
    """Give files the times that they were published with, by which a run knows them again."""
    for name, entry in read_json(folder / STAGE_FILE)["files"].items():
        if not (folder / name).exists():
            raise DataError(f"the run is damaged: {folder / name} is missing", "Run it again.")
        os.utime(folder / name, ns=(entry["mtime_ns"], entry["mtime_ns"]))
