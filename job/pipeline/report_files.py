"""Writes report.json, report.md and report.html, and reads report.json of a finished run."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import job
from job.errors import DataError, OutputError, UsageError
from job.events import Say
from job.pipeline.output_location import Location, store_of_environment
from job.pipeline.plan import REPORT
from job.storage.files import make_folder, output_errors, read_json, write_bytes, write_json
from job.storage.local import FAILURE, LOGS, PARTIALS
from job.storage.s3.fetch_run import REPORT_FILE, read_file, read_report, superseded
from job.ui.protocol import Ui

# File with the cache key of the report in the same folder. The file is written last, so a folder
# with this file has a complete report.
REPORT_KEY = ".report.json"

# Returns the content of each file to write, by name.
Renderer = Callable[[Mapping[str, Any]], Mapping[str, str]]


def render_files(report: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the content of ``report.json``, ``report.md``, ``report.html`` and deploy.json files.

    Raises:
        OutputError: the report or a deployment record does not match its schema.
    """
    # Importing matplotlib takes a second, which a run that reuses its report need not spend.
    from job.report.deploy import NAME, deploy_records
    from job.report.render import html, markdown, schema_check
    from job.report.sections import page_of
    from job.report.tables import is_matrix

    schema_check.validate(report)
    page = page_of(report)
    deploys = {} if is_matrix(report) else deploy_records(report)
    for record in deploys.values():
        schema_check.validate_deploy(record)
    return {
        # As UTF-8 without escapes, because a service in C++ may have a simple reader of JSON.
        **{
            f"{folder}/{NAME}": _text(record, ensure_ascii=False)
            for folder, record in deploys.items()
        },
        "report.json": _text(report, ensure_ascii=True),
        "report.md": markdown.render(page),
        "report.html": html.render(page),
    }


def _text(document: Mapping[str, Any], *, ensure_ascii: bool) -> str:
    return f"{json.dumps(document, indent=2, allow_nan=False, ensure_ascii=ensure_ascii)}\n"


def report_key(**made_of: Any) -> str:
    """Return the cache key of a report.

    Args:
        made_of: the values that can change the report, as JSON values.
    """
    content = json.dumps({"job": job.__version__, **made_of}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def reusable(folder: Path, key: str) -> Mapping[str, Any] | None:
    """Return the report in a folder if it was written with this key, otherwise None."""
    document = read_json(folder / REPORT_FILE)
    same = read_json(folder / REPORT_KEY) == key
    return document if same and isinstance(document, dict) else None


def write_or_reuse(
    folder: Path,
    key: str,
    make: Callable[[], Mapping[str, Any]],
    ui: Ui,
    *,
    reason: str,
    again: bool = False,
    render: Renderer = render_files,
) -> Mapping[str, Any]:
    """Write a report's files and its key, unless the folder has a report with this key.

    Args:
        folder: the output folder, locked.
        key: the report's cache key.
        make: returns the report.
        ui: receives the start and the end of the stage ``report``.
        reason: why the report is written, for ``ui``.
        again: write the report even if the folder has one with this key.
        render: returns the content of each file to write, by name.

    Returns:
        The report that is in the folder now.

    Raises:
        OutputError: the report does not match its schema.
        OSError: a file cannot be written.
    """
    earlier = None if again else reusable(folder, key)
    if earlier is not None:
        return earlier
    ui.stage_started(REPORT, reason)
    started = time.monotonic()
    document = make()
    files = render(document)
    (folder / REPORT_KEY).unlink(missing_ok=True)
    for name, text in files.items():
        write_bytes(folder / name, text.encode())
    write_json(folder / REPORT_KEY, key)
    ui.stage_finished(REPORT, time.monotonic() - started)
    return document


def read(place: Location, say: Say) -> Mapping[str, Any]:
    """Return report.json of a run in a folder or in S3.

    Args:
        place: the output folder of the run, or its S3 URI.
        say: callback for messages about the report.

    Raises:
        UsageError: there is no run, or the run has no report yet.
        DataError: report.json is damaged.
    """
    if not isinstance(place, Path):
        return read_report(store_of_environment(say), place, say)
    source = place / REPORT_FILE
    if not source.is_file():
        raise _without_report(place)
    document = read_json(source)
    if not isinstance(document, dict):
        raise DataError(
            f"{source}: expected a JSON object", "Run the job again with --from report."
        )
    if _is_superseded(place):
        say(superseded(place))
    return document


def _is_superseded(folder: Path) -> bool:
    """Return whether a later run in the folder of a run has failed, or has not finished a stage."""
    return (folder / FAILURE).is_file() or any(
        path.is_dir() and not path.name.startswith(".")
        for partials in (f"{PARTIALS}/*", f"*/{PARTIALS}/*")
        for path in folder.glob(partials)
    )


def _without_report(folder: Path) -> UsageError:
    """Return the error for a folder without report.json; it names what the folder is."""
    failure = read_json(folder / FAILURE)
    if isinstance(failure, dict):
        reason = str(failure.get("message", "")).partition("\n")[0]
        return UsageError(
            f"the run in {folder} failed, so it has no {REPORT_FILE}: {reason}",
            "Correct the cause, then run the same `job run` command again.",
        )
    if (folder / LOGS).is_dir():
        return UsageError(
            f"the run in {folder} is not finished, so it has no {REPORT_FILE}",
            "Run the same `job run` command again. The run resumes.",
        )
    if (folder.parent / REPORT_FILE).is_file():
        return UsageError(f"{folder} is a part of a run", f"Give {folder.parent}.")
    what = "" if folder.exists() else ", because the folder does not exist"
    return UsageError(
        f"no {REPORT_FILE} in {folder}{what}", "Give the output folder of a finished run."
    )


def read_valid(place: Location, say: Say) -> Mapping[str, Any]:
    """Return report.json of a run, checked against its schema; otherwise as :func:`read`.

    Raises:
        UsageError: there is no run, or the run has no report yet.
        DataError: report.json is damaged, or does not match its schema.
    """
    from job.report.render import schema_check

    report = read(place, say)
    try:
        schema_check.validate(report)
    except OutputError as error:
        faults = error.message.removeprefix(f"{REPORT_FILE}: ")
        raise DataError(
            f"{place / REPORT_FILE} does not match the schema of this version: {faults}",
            "If another version of `job` wrote the file, run the job again with --from report. If "
            "the file was edited, restore it.",
        ) from error
    return report


def read_artifact(place: Location, name: str, say: Say) -> bytes | None:
    """Return the content of a file of a finished run; None if the output does not contain it.

    Args:
        place: the output folder of the run, or its S3 URI.
        name: path of the file in the output, with slashes.
        say: callback for messages about requests that fail repeatedly.

    Raises:
        UsageError: there is no finished run.
        DataError: the object in S3 differs from what the run wrote.
    """
    if not isinstance(place, Path):
        return read_file(store_of_environment(say), place, name)
    path = place / name
    return path.read_bytes() if path.is_file() else None


def write(document: Mapping[str, Any], folder: Path, *, source: Location) -> None:
    """Render a report and write its files.

    Args:
        document: the report, as :func:`read` returns it.
        folder: where to write; created if missing.
        source: location from which the report was read. The report.json there is not overwritten.

    Raises:
        OutputError: the folder cannot be written.
        DataError: the report does not match its schema.
    """
    try:
        files = render_files(document)
    except OutputError as error:
        raise DataError(f"{source / REPORT_FILE}: {error.message}", error.hint) from error
    with output_errors(folder):
        make_folder(folder)
        for name, text in files.items():
            # The models are not in this folder unless the run is.
            if (folder / name).parent.is_dir() and (name != REPORT_FILE or folder != source):
                write_bytes(folder / name, text.encode())
