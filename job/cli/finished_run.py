"""The commands for finished runs: render the report again, download a run from S3."""

from pathlib import Path
from typing import Annotated

import typer

from job.cli.options import JunitOption

app = typer.Typer()


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="DIR|S3URI", help="Output of a finished run.")],
    output: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Write the report to this folder. Default: the run's folder. For S3, no default.",
        ),
    ] = None,
    junit: JunitOption = None,
) -> None:
    """Render the report of a finished run again, from its report.json.

    For a run in S3, the command prints the tables, and writes files only with --output. It changes
    nothing in S3. Set the server and the credentials in AWS_* variables.

    \b
    Examples:
      job report runs/digits
      job report s3://results/digits --output report
      job report runs/digits --junit gates.xml
    """
    from job.cli.junit import junit_path, write_junit
    from job.cli.results import print_tables
    from job.pipeline.output_location import on_this_machine, place_of
    from job.pipeline.report_files import read_valid, write

    gates = junit_path(junit)
    place = place_of(run)
    target = place if output is None else on_this_machine(output, "--output")
    document = read_valid(place, _note)
    if isinstance(target, Path):
        write(document, target, source=place)
    if gates is not None:
        write_junit(document, gates)
    print_tables(document, target)


@app.command()
def fetch(
    run: Annotated[str, typer.Argument(metavar="S3URI", help="Output of a finished run.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder to write to.")],
) -> None:
    """Download a finished run from S3 and verify all checksums.

    Files that are already in the folder are not downloaded again. After a failure, run the same
    command again. Set the server and the credentials in AWS_* variables.

    \b
    Example:
      job fetch s3://results/digits runs/digits
    """
    from job.pipeline.output_location import on_this_machine, store_of_environment
    from job.storage.s3.fetch_run import fetch as fetch_run
    from job.uri import parse

    target = on_this_machine(folder, "DIR")
    done = fetch_run(store_of_environment(_note), parse(run), target, _note)
    typer.echo(
        f"{target}: {done.files} files, {done.bytes:,} bytes, all checksums verified"
        f" ({done.there} files were already in the folder)"
    )


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)
