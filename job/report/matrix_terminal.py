"""The tutorial's two tables over all models of a matrix, on a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from job.report import matrix_results as results
from job.report.blocks import Grid
from job.report.matrix_summary import summarize
from job.report.terminal import table

UNBOUNDED = 10_000


def print_tables(report: Mapping[str, Any], console: Console) -> None:
    """Print headline, notices, tables I and II and what failed; 80 columns are enough."""
    summary = summarize(report)
    console.print(Text(summary.headline, style="bold green" if summary.passed else "bold red"))
    for notice in summary.notices:
        console.print(Text(notice, style="yellow"))
    for grid in grids(report, console):
        console.print()
        console.print(table(grid))


def grids(report: Mapping[str, Any], console: Console) -> list[Grid]:
    """The tables that have rows, table II in the form that fits the screen."""
    found = [results.accuracy_grid(report)]
    whole = results.speed_grid(report)
    if whole.rows:
        wanted = console.measure(table(whole), options=console.options.update(width=UNBOUNDED))
        fits = wanted.maximum <= console.width
        found += [whole] if fits else results.speed_grids(report)
    found += [results.gates_grid(report), results.failures_grid(report)]
    return [grid for grid in found if grid.rows]
