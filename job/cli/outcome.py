"""Reports how a command ended: last message, termination log and exit code."""

import tempfile
import traceback
from types import TracebackType
from typing import TYPE_CHECKING

import typer

from job.cli import termination_log
from job.cli.options import LogFormat
from job.errors import INTERNAL, JobError

if TYPE_CHECKING:
    from job.pipeline.matrix import MatrixResult
    from job.pipeline.run import RunResult
    from job.ui.protocol import Ui


def finish(result: "RunResult | MatrixResult", log_format: LogFormat, ui: "Ui") -> None:
    """Print the result of a run.

    Raises:
        typer.Exit: a gate or a model failed; with the documented exit code.
    """
    from job.cli.results import headline_of, print_result

    print_result(result, as_json=log_format is LogFormat.json)
    if result.failure is not None:
        raise failed(result.failure, ui)
    termination_log.write(headline_of(result))


def failed(error: JobError, ui: "Ui") -> typer.Exit:
    """Show an error, and return the exception that ends the command with its exit code."""
    ui.failed(error)
    termination_log.write(f"exit {error.exit_code}: {error.message}")
    return typer.Exit(error.exit_code)


def succeeded(text: str) -> None:
    """Print the last message of a command, also to the termination log."""
    typer.echo(text)
    termination_log.write(text)


def report_unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an unexpected exception in one line; write the traceback to a file.

    This is a ``sys.excepthook``: Python ends the process with exit code 1 afterwards.
    """
    with tempfile.NamedTemporaryFile(
        "w", prefix="job-traceback-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.writelines(traceback.format_exception(kind, error, trace))
    message = f"unexpected {kind.__name__}: {error}"
    typer.echo(f"error: {message} (traceback: {file.name}; exit {INTERNAL})", err=True)
    typer.echo("Report this as a bug, together with the file of the traceback.", err=True)
    termination_log.write(f"exit {INTERNAL}: {message}")
