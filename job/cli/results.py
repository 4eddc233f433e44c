"""Prints the result of a command to standard output."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from job.pipeline.matrix import MatrixResult
from job.pipeline.output_location import Location
from job.pipeline.run import RunResult
from job.report import terminal
from job.report.summary import summarize

_NO_REPORT = "Stopped before the report (--until)."


def print_result(result: RunResult | MatrixResult, *, as_json: bool) -> None:
    """Print the tables and the location of the report, or one JSON object."""
    if isinstance(result, MatrixResult):
        _print_matrix_result(result, as_json)
        return
    if as_json:
        status = result.report["status"] if result.report else "incomplete"
        rows = [vars(row) for row in result.rows]
        line = {"event": "result", "status": status, "worked": result.worked}
        print(json.dumps({**line, "output": str(result.output), "stages": rows}))
        return
    if not result.worked:
        print("Nothing changed since the last run: all results were reused.")
    if result.report is None:
        print(f"Stopped after {result.rows[-1].name} (--until). No report was written.")
    else:
        print_tables(result.report, result.output)


def _print_matrix_result(result: MatrixResult, as_json: bool) -> None:
    if as_json:
        status = result.report["status"] if result.report else "incomplete"
        line = {"event": "result", "status": status, "worked": result.worked}
        models = [{"model": model.name, "status": model.status} for model in result.models]
        print(json.dumps({**line, "output": str(result.output), "matrix": models}))
        return
    if not result.worked:
        print("Nothing changed since the last run: all results of all models were reused.")
    if result.report is None:
        print(_NO_REPORT)
    else:
        print_tables(result.report, result.output)


def print_tables(report: Mapping[str, Any], output: Location | None) -> None:
    """Print the tables of a report and the location of its files.

    Args:
        report: the content of report.json.
        output: the location of the report's files; None if no files were written.
    """
    terminal.print_tables(report, Console())
    if isinstance(output, Path):
        print(f"\nReport: {short_path(output / 'report.html')} (also report.md, report.json)")
    elif output is not None:
        print(f"\nDownload all files: job fetch {output} FOLDER")


def headline_of(result: RunResult | MatrixResult) -> str:
    """Return the result in one sentence."""
    if result.report is None:
        return _NO_REPORT
    return summarize(result.report).headline


def short_path(path: Location) -> str:
    """Return a path relative to the current directory, if it is inside."""
    if not isinstance(path, Path):
        return str(path)
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
