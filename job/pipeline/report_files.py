"""report.json and what people read of it, as text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import DataError, OutputError, UsageError
from job.pipeline.output_location import Location, store_of_environment
from job.storage.files import output_errors, read_json, write_bytes
from job.storage.s3.fetch_run import REPORT_FILE, Say, read_report


def render_files(report: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the content of ``report.json``, ``report.md`` and ``report.html``.

    Raises:
        OutputError: the report breaks its schema.
    """
    # Drawing the plots costs a second of imports, which a run that is done already need not pay.
    from job.report.render import html, markdown, schema_check
    from job.report.sections import page_of

    schema_check.validate(report)
    page = page_of(report)
    return {
        "report.json": f"{json.dumps(report, indent=2, allow_nan=False)}\n",
        "report.md": markdown.render(page),
        "report.html": html.render(page),
    }


def read(place: Location, say: Say) -> Mapping[str, Any]:
    """Return report.json of a run in a folder or in S3.

    Args:
        place: where.
        say: is told what a reader should know of it.

    Raises:
        UsageError: the run is not finished, or there is none.
        DataError: it is damaged.
    """
    if not isinstance(place, Path):
        return read_report(store_of_environment(say), place, say)
    source = place / REPORT_FILE
    if not source.is_file():
        raise UsageError(
            f"{place} holds no {REPORT_FILE}", "Give the output folder of a run that has finished."
        )
    document = read_json(source)
    if not isinstance(document, dict):
        raise DataError(f"{source} is not a JSON object", "Run the job again with --from report.")
    return document


def write(document: Mapping[str, Any], folder: Path, *, source: Location) -> None:
    """Write a report's files; its report.json only where it was not read.

    Raises:
        OutputError: the folder cannot be written.
        DataError: the report breaks its schema.
    """
    try:
        files = render_files(document)
    except OutputError as error:
        raise DataError(f"{source / REPORT_FILE}: {error.message}", error.hint) from error
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            if name != REPORT_FILE or folder != source:
                write_bytes(folder / name, text.encode())
