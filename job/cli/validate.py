"""``job validate``: check manifests."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from job.errors import DataError, JobError, ManifestError, UsageError

app = typer.Typer()


@app.command()
def validate(
    manifests: Annotated[
        list[str],
        typer.Argument(
            metavar="MANIFEST...", help="JSON files, s3:// URIs, or - for standard input."
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON array with one object per manifest.")
    ] = False,
) -> None:
    """Check manifests and list all faults.

    The command also checks the kind of the model's files and the function of a custom network,
    without running its code. Files that are missing or in S3 are not checked.

    \b
    Examples:
      job validate manifests/*.json
      job validate m.json --json
      cat m.json | job validate -
    """
    from job.api.validation import validate as check_manifest

    codes, rows = [], []
    for source in manifests:
        error: JobError | None = None
        try:
            check_manifest(source)
        except (UsageError, DataError) as found:
            error = found
            codes.append(error.exit_code)
        rows.append(_validity(source, error))
        if as_json:
            continue
        if error is None:
            typer.echo(f"{source}: valid")
        else:
            typer.echo(_with_source(error, source), err=True)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    if codes:
        raise typer.Exit(min(codes))


def _validity(source: str, error: JobError | None) -> dict[str, Any]:
    """Return the result of a check as a JSON object."""
    faults = error.faults if isinstance(error, ManifestError) else ()
    return {
        "manifest": source,
        "valid": error is None,
        "faults": [asdict(fault) for fault in faults],
        "error": None if error is None else {"message": error.message, "hint": error.hint},
    }


def _with_source(error: JobError, source: str) -> str:
    return str(error) if str(error).startswith(source) else f"{source}: {error}"
