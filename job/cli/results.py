"""Prints the result of a command to standard output."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from job.pipeline.matrix import MatrixResult
from job.pipeline.output_location import Location
from job.pipeline.plan import PlannedStage
from job.pipeline.run import RunResult
from job.report import terminal
from job.report.summary import summarize

_NO_REPORT = "Stopped before the report (--until)."


def print_plans(plans: Sequence[tuple[str, Sequence[PlannedStage]]], *, as_json: bool) -> None:
    """Print what a run would do with each model of a matrix."""
    console = Console(highlight=False, soft_wrap=True)
    for number, (name, planned) in enumerate(plans, 1):
        if as_json:
            for stage in planned:
                print(json.dumps({"model": name, **_planned_json(stage)}))
            continue
        console.print(Text(f"{name}: model {number} of {len(plans)}", "bold cyan"))
        print_plan(planned, as_json=False)


def print_plan(planned: Sequence[PlannedStage], *, as_json: bool) -> None:
    """Print what a run would do, as text or as one JSON object per stage."""
    if as_json:
        for stage in planned:
            print(json.dumps(_planned_json(stage)))
        return
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(stage.name) for stage in planned)
    for stage in planned:
        line = Text(f"{stage.name:{width}}  ", "bold")
        line.append(f"{stage.action:6}  ", "yellow" if stage.action == "run" else "green")
        console.print(line.append(stage.reason, "not bold"))
        for path in stage.reads:
            missing = path in stage.missing
            note, style = (" (missing)", "red") if missing else ("", "")
            console.print(Text(f"{'':{width}}  reads   {_short(path)}{note}", style))
        console.print(Text(f"{'':{width}}  writes  {_short(stage.writes)}"))


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
        print(f"\nReport: {_short(output / 'report.html')} (also report.md, report.json)")
    elif output is not None:
        print(f"\nDownload all files: job fetch {output} FOLDER")


def headline_of(result: RunResult | MatrixResult) -> str:
    """Return the result in one sentence."""
    if result.report is None:
        return _NO_REPORT
    return summarize(result.report).headline


def _planned_json(stage: PlannedStage) -> Mapping[str, Any]:
    return {
        "stage": stage.name,
        "action": stage.action,
        "reason": stage.reason,
        "reads": [str(path) for path in stage.reads],
        "missing": [str(path) for path in stage.missing],
        "writes": str(stage.writes),
    }


def _short(path: Location) -> str:
    """Return a path relative to the current directory, if it is inside."""
    if not isinstance(path, Path):
        return str(path)
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
