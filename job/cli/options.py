"""Arguments that several commands take."""

from enum import StrEnum
from typing import Annotated

import typer


class LogFormat(StrEnum):
    """How progress is shown."""

    text = "text"
    json = "json"


ManifestArgument = Annotated[
    str, typer.Argument(metavar="MANIFEST", help="A JSON file, s3://..., or - for standard input.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="POINTER=VALUE",
        help="Override a key; the value is JSON, else text. May be repeated.",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(metavar="DIR|S3URI", help="Use this instead of the manifest's output."),
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(help="Progress as text (bars on a terminal) or one JSON object a line."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
