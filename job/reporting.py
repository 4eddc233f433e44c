"""A finished run's report: read where the run is, rendered again where it is wanted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import DataError, OutputError, UsageError
from job.pipeline.output_location import Place, store_of_environment
from job.pipeline.report_files import render_files
from job.storage.files import output_errors, read_json, write_bytes
from job.storage.s3.fetch_run import REPORT, Say, read_report


def read(place: Place, say: Say) -> Mapping[str, Any]:
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
    source = place / REPORT
    if not source.is_file():
        raise UsageError(
            f"{place} holds no {REPORT}", "Give the output folder of a run that has finished."
        )
    document = read_json(source)
    if not isinstance(document, dict):
        raise DataError(f"{source} is not a JSON object", "Run the job again with --from report.")
    return document


def write(document: Mapping[str, Any], folder: Path, *, source: Place) -> None:
    """Write a report's files; its report.json only where it was not read.

    Raises:
        OutputError: the folder cannot be written.
        DataError: the report breaks its schema.
    """
    try:
        files = render_files(document)
    except OutputError as error:
        raise DataError(f"{source / REPORT}: {error.message}", error.hint) from error
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            if name != REPORT or folder != source:
                write_bytes(folder / name, text.encode())
