"""The tutorial's two tables over all models of a matrix, on a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from job.report.matrix import results
from job.report.matrix.summary import summarize
from job.report.render.blocks import Grid
from job.report.run.terminal import table

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
    """The tables that have rows, in the form that fits the screen where there are two."""
    wide = console.options.update(width=UNBOUNDED)

    def fits(grid: Grid) -> bool:
        return console.measure(table(grid), options=wide).maximum <= console.width

    whole, engines = results.speed_grid(report), results.engines_grids(report)
    found = [
        results.accuracy_grid(report),
        *((whole,) if fits(whole) else results.speed_grids(report)),
        *(engines if all(map(fits, engines)) else results.fastest_grids(report)),
        results.gates_grid(report),
        results.failures_grid(report),
    ]
    return [grid for grid in found if grid.rows]
