"""Writes the gates of a report as JUnit XML."""

from collections.abc import Mapping
from typing import Any

from job.errors import UsageError
from job.pipeline.output_location import on_this_machine
from job.report.junit import junit
from job.storage.files import output_errors, write_bytes


def write_junit(report: Mapping[str, Any] | None, file: str) -> None:
    """Write the gates of a report to a file.

    Raises:
        UsageError: there is no report, because --until ended the run, or the file is in S3.
        OutputError: the file cannot be written.
    """
    if report is None:
        raise UsageError(
            "--junit: the run has no report, because --until ended it", "Omit --until or --junit."
        )
    path = on_this_machine(file, "--junit")
    with output_errors(path):
        write_bytes(path, junit(report).encode())
