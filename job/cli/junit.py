"""Writes the gates of a report as JUnit XML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import UsageError
from job.pipeline.output_location import on_this_machine
from job.report.junit import junit
from job.storage.files import output_errors, write_bytes


def junit_path(file: str | None, until_stage: str | None = None) -> Path | None:
    """Return the path of the option --junit; None without the option.

    Raises:
        UsageError: the file is in S3, or --until ends the run before its report.
    """
    if file is None:
        return None
    if until_stage is not None:
        raise UsageError(
            f"--junit needs the report, but --until {until_stage} ends the run before it",
            "Omit --until or --junit.",
        )
    return on_this_machine(file, "--junit")


def write_junit(report: Mapping[str, Any], path: Path) -> None:
    """Write the gates of a report to a file.

    Raises:
        OutputError: the file cannot be written.
    """
    with output_errors(path):
        write_bytes(path, junit(report).encode())
