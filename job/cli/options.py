"""Arguments and options that several commands have."""

from enum import StrEnum
from typing import Annotated

import typer


class LogFormat(StrEnum):
    """Format of progress and messages on standard error."""

    text = "text"
    json = "json"


ManifestArgument = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST",
        help="JSON file, s3:// URI, name of an example (digits, detection-digits), or - for "
        "standard input.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, such as train.epochs=3. A value that is not valid JSON is read as "
        "text. Repeat the option to override several keys.",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(metavar="DIR|S3URI", help="Output of the run, instead of the manifest's output."),
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        help="Print progress as text (bars on a terminal), or as JSON (one object per line)."
    ),
]
JunitOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Also write the results of the gates as JUnit XML."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
