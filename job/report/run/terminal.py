"""The headline, the gates and the two tables on a terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from job.report.render.blocks import Grid
from job.report.run.breakdown import advice_of, kinds_grid, summary_text, title_of
from job.report.run.differences import differences_grid, fallback_grid
from job.report.run.results import accuracy_grid, gates_grid
from job.report.run.speed import int8_engines_grids, latency_grids, throughput_grids
from job.report.run.summary import summarize


def print_tables(report: Mapping[str, Any], console: Console) -> None:
    """Print headline, notices, tables I and II, and the gates; at least 80 columns look right."""
    summary = summarize(report)
    # Text objects, because names are user data and rich would read [brackets] as markup.
    console.print(Text(summary.headline, style="bold green" if summary.passed else "bold red"))
    for notice in summary.notices:
        console.print(Text(notice, style="yellow"))
    grids = [*throughput_grids(report), *int8_engines_grids(report), *latency_grids(report)]
    if report["accuracy"] is not None:
        grids.insert(0, accuracy_grid(report))
    if report["gates"]:
        grids.append(gates_grid(report))
    failed = {gate["name"] for gate in report["gates"] if not gate["passed"]}
    if report["audit"]["fallback"] is not None:
        grids.append(fallback_grid(report))
    if "max_top1_drop" in failed and report["audit"]["differences"]:
        grids.append(differences_grid(report))
    for grid in grids:
        console.print()
        console.print(table(grid))
    if "min_speedup" in failed:
        print_breakdown(report, console)


def print_breakdown(report: Mapping[str, Any], console: Console) -> None:
    """Print where the time goes under each ISA cap, and what to do about it."""
    for part in report["breakdown"]:
        console.print()
        console.print(Text(title_of(report, part), style="bold"))
        console.print(Text(summary_text(part)))
        for advice in advice_of(part):
            console.print(Padding(Text(f"• {advice}"), (0, 0, 0, 1)))
        console.print()
        console.print(table(kinds_grid(part)))


def table(grid: Grid) -> Table:
    """A grid as rich draws it."""
    drawn = Table(
        title=Text(grid.title, style="bold"),
        title_justify="left",
        caption=Text(grid.note, style="dim") if grid.note else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in grid.columns:
        drawn.add_column(
            Text(column.title),
            justify="right" if column.numeric else "left",
            no_wrap=column.numeric,
            overflow="fold",
        )
    for row in grid.rows:
        cells = [Text(cell) for cell in row]
        if cells[-1].plain == "FAILED":
            cells[-1].stylize("bold red")
        drawn.add_row(*cells)
    return drawn
