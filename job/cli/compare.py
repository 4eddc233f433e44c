"""``job compare``: two finished runs side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from job.cli.options import JsonOption

if TYPE_CHECKING:
    from job.compare.comparison import Comparison

app = typer.Typer()


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Output of the run to compare with.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Output of the run to judge.")],
    as_json: JsonOption = False,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write the comparison as a page.")
    ] = None,
    fail_on_worse: Annotated[
        bool,
        typer.Option(
            "--fail-on-worse", help="Exit with code 3 if a result is worse in B than in A."
        ),
    ] = False,
) -> None:
    """Compare two finished runs: results that are worse in B first.

    A and B are output folders or s3:// URIs. Accuracy is compared image by image if both outputs
    contain their predictions. Speed is compared only if machine, instruction set and threads are
    equal. Set the server and the credentials of S3 in AWS_* variables.

    \b
    Examples:
      job compare runs/before runs/after
      job compare s3://results/main runs/digits --fail-on-worse
      job compare runs/before runs/after --html compare.html
    """
    from job.compare.comparison import compare as compare_runs
    from job.compare.finished_run import open_run
    from job.compare.page import headline
    from job.errors import GateFailed
    from job.pipeline.output_location import on_this_machine

    target = None if html is None else on_this_machine(html, "--html")
    comparison = compare_runs(open_run(a, _note), open_run(b, _note))
    if target is not None:
        _write(comparison, target)
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=2))
    else:
        _print(comparison)
    if fail_on_worse and comparison.worse:
        raise GateFailed(headline(comparison))


def _write(comparison: "Comparison", path: Path) -> None:
    from job.compare.page import page_of
    from job.report.render import html
    from job.storage.files import output_errors, write_bytes

    with output_errors(path):
        write_bytes(path, html.render(page_of(comparison)).encode())


def _print(comparison: "Comparison") -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from job.compare import page
    from job.report.terminal import fitting, table

    console = Console()
    style = "bold red" if comparison.worse else "bold green" if comparison.judged else "bold yellow"
    console.print(Text(page.headline(comparison), style=style))
    for note in comparison.notes:
        console.print(Text(note, style="yellow"))
    console.print()
    console.print(table(page.narrow_results_grid(comparison)))
    for basis in page.bases(comparison):
        console.print(Padding(Text(f"• {basis}"), (0, 0, 0, 1)))
    for grid in (*page.differences_grids(comparison), page.runs_grid(comparison)):
        for part in fitting(grid, console.width):
            console.print()
            console.print(table(part))


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)
