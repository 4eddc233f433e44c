"""Headline, notices and the main tables of a report on a terminal."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from job.report.cells import gates_grid
from job.report.matrix import results as matrix
from job.report.render.blocks import BAD_VERDICTS, Grid
from job.report.run.breakdown import advice_of, kinds_grid, summary_text, title_of
from job.report.run.differences import differences_grid, fallback_grid
from job.report.run.quality import accuracy_grid, closeness_grid
from job.report.run.recommend import slower_rows
from job.report.run.scenarios import scenarios_grid
from job.report.run.speed import int8_engines_grids, latency_grids, throughput_grids
from job.report.summary import summarize
from job.report.tables import is_matrix, speed_rows
from job.report.views import view_of

UNBOUNDED = 10_000
# Longer words, such as names of ops, may be broken.
_LONGEST_WORD = 12
# Spaces between two columns.
_PADDING = 3
# An interval stands beside its value.
_INTERVAL = "95%"


def print_tables(report: Mapping[str, Any], console: Console) -> None:
    """Print headline, notices and tables of a valid report; 80 columns are enough."""
    summary = summarize(report)
    # Text objects, because names are user data and rich would read [brackets] as markup.
    console.print(Text(summary.headline, style="bold green" if summary.passed else "bold red"))
    for notice in summary.notices:
        console.print(Text(notice, style="yellow"))
    for note in summary.notes:
        console.print(Text(note, style="dim"))
    for grid in _matrix_grids(report, console) if is_matrix(report) else _run_grids(report):
        for part in fitting(grid, console.width) if grid.rows else ():
            console.print()
            console.print(table(part))
    if is_matrix(report):
        return
    if "min_speedup" in _failed_gates(report) or slower_rows(speed_rows(report)):
        print_breakdown(report, console)


def _run_grids(report: Mapping[str, Any]) -> Iterator[Grid]:
    if report["accuracy"] is not None:
        grids = (accuracy_grid(report), closeness_grid(report))
        yield from (grid for grid in grids if grid is not None)
    yield from (*throughput_grids(report), scenarios_grid(report))
    yield from (*int8_engines_grids(report), *latency_grids(report))
    yield gates_grid(report)
    if report["audit"]["fallback"] is not None:
        yield fallback_grid(report)
    if view_of(report).gate.name in _failed_gates(report):
        yield differences_grid(report)


def _failed_gates(report: Mapping[str, Any]) -> set[str]:
    return {gate["name"] for gate in report["gates"] if gate["passed"] is False}


def _matrix_grids(report: Mapping[str, Any], console: Console) -> Iterator[Grid]:
    """Yield the tables of a matrix; those with a narrow form in the form that fits the screen."""
    wide = console.options.update(width=UNBOUNDED)

    def fits(grid: Grid) -> bool:
        return console.measure(table(grid), options=wide).maximum <= console.width

    accuracy, speed = matrix.accuracy_grid(report), matrix.speed_grid(report)
    engines = matrix.engines_grids(report)
    yield from (accuracy,) if fits(accuracy) else matrix.accuracy_grids(report)
    yield from (speed,) if fits(speed) else matrix.speed_grids(report)
    yield from engines if all(map(fits, engines)) else matrix.fastest_grids(report)
    yield gates_grid(report)
    yield matrix.failures_grid(report)


def print_breakdown(report: Mapping[str, Any], console: Console) -> None:
    """Print the time by kind of primitive under each ISA cap, with advice."""
    for part in report["breakdown"]:
        console.print()
        console.print(Text(title_of(report, part), style="bold"))
        console.print(Text(summary_text(part)))
        for advice in advice_of(part):
            console.print(Padding(Text(f"• {advice}"), (0, 0, 0, 1)))
        console.print()
        console.print(table(kinds_grid(part)))


def fitting(grid: Grid, width: int) -> Iterator[Grid]:
    """Yield a grid in parts that fit the terminal.

    Each part has the columns up to the first column of words, which name the rows.

    Args:
        grid: the grid.
        width: columns of the terminal, in characters.
    """
    widths = [_least_width(grid, place) + _PADDING for place in range(len(grid.columns))]
    named = next((n for n, column in enumerate(grid.columns, 1) if not column.numeric), len(widths))
    if sum(widths) <= width or len(widths) - named < 2:
        yield grid
        return
    end = max(named + 1, sum(total <= width for total in accumulate(widths)))
    while end > named + 1 and grid.columns[end].title.startswith(_INTERVAL):
        end -= 1
    yield _part(grid, range(end), grid.title, "")
    places = (*range(named), *range(end, len(widths)))
    yield from fitting(_part(grid, places, f"{grid.title}, continued", grid.note), width)


def _part(grid: Grid, places: Iterable[int], title: str, note: str) -> Grid:
    """Return the columns of a grid at these places."""
    chosen = list(places)
    rows = tuple(tuple(row[place] for place in chosen) for row in grid.rows)
    return Grid(title, tuple(grid.columns[place] for place in chosen), rows, note)


def _least_width(grid: Grid, place: int) -> int:
    """Return the width below which a column would be cut, or its words broken."""
    column, cells = grid.columns[place], [row[place] for row in grid.rows]
    if column.numeric:
        return max(map(len, (*cells, *column.title.splitlines())))
    words = (word for cell in cells for word in cell.split())
    return min(_LONGEST_WORD, max(map(len, words), default=0))


def table(grid: Grid) -> Table:
    """Return a grid as a rich table."""
    drawn = Table(
        title=Text(grid.title, style="bold"),
        title_justify="left",
        caption=Text(grid.note, style="dim") if grid.note else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for place, column in enumerate(grid.columns):
        drawn.add_column(
            Text(column.title),
            justify="right" if column.numeric else "left",
            no_wrap=column.numeric,
            overflow="fold",
            # rich breaks words before it breaks the lines of other columns.
            min_width=_least_width(grid, place),
        )
    for row in grid.rows:
        cells = [Text(cell) for cell in row]
        for cell, column in zip(cells, grid.columns, strict=True):
            if column.title == "Verdict" and cell.plain in BAD_VERDICTS:
                cell.stylize("bold red")
        drawn.add_row(*cells)
    return drawn
