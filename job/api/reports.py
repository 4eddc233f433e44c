"""Reads the report of a finished run."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from job.pipeline.output_location import place_of
from job.pipeline.report_files import read_valid


def load_report(
    output: str | os.PathLike[str], say: Callable[[str], None] | None = None
) -> Mapping[str, Any]:
    """Return the report of a finished run or matrix, checked against its schema.

    Args:
        output: the output folder of the run, or its ``s3://`` URI.
        say: callback for messages, such as that a later run is not finished; None drops them.

    Returns:
        The content of report.json, see ``schemas/report.schema.json`` and
        ``schemas/matrix_report.schema.json``. Accuracies are in percent.

    Raises:
        UsageError: there is no run, or the run has no report yet.
        DataError: report.json is damaged.
    """
    return read_valid(place_of(os.fspath(output)), say or _drop)


def _drop(text: str) -> None:
    """Drop a message."""
