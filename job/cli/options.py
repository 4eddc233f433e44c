"""Arguments and options that several commands have."""

from enum import StrEnum
from typing import Annotated

import typer


class LogFormat(StrEnum):
    """Format of progress and messages on standard error."""

    text = "text"
    json = "json"


ManifestArgument = Annotated[
    str, typer.Argument(metavar="MANIFEST", help="JSON file, s3:// URI, or - for standard input.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="POINTER=VALUE",
        help="Override a key, such as train.epochs=3. The value is read as JSON, else as text. "
        "Can be repeated.",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(metavar="DIR|S3URI", help="Write here instead of to the manifest's output."),
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(help="Progress as text (bars on a terminal), or as one JSON object a line."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
