"""The command line: arguments, and from errors to exit codes; the work is done elsewhere.

Modules that a command needs are imported when it runs: ``--help`` must answer at once.
"""

import json
import sys
import tempfile
import traceback
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from job import __version__
from job.cli import k8s, termination_log
from job.cli import predict as tester_cli
from job.cli.options import (
    JsonOption,
    LogFormat,
    LogFormatOption,
    ManifestArgument,
    OutputOption,
    Overrides,
)
from job.errors import INTERNAL, JobError, MachineError, ManifestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.manifest import Manifest
    from job.pipeline.matrix import MatrixResult
    from job.pipeline.run import RunResult
    from job.ui.protocol import Ui

_EPILOG = """\b
Exit codes: 0 done; 2 the manifest or the command line is wrong; 3 a gate failed, with all
artifacts and the report written; 4 data or weights missing or corrupt; 5 this machine cannot do
the job; 1 anything else; 128 + signal when stopped.

\b
First steps:
  job doctor                          can this machine do it?
  job run manifests/digits.json       a whole run in minutes
  job explain train.base_lr           what does this key mean?
"""

app = typer.Typer(
    name="job",
    help="From a JSON manifest to a measured INT8 model: FP32 baseline, quantization-aware "
    "training, oneDNN INT8, accuracy and speed, one report.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Rich help costs a quarter of a second at each --help.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tester_cli.app)
app.add_typer(k8s.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"job {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    manifest: ManifestArgument,
    overrides: Overrides = None,
    output: OutputOption = None,
    from_stage: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="Run this stage and those that need it anew."),
    ] = None,
    until_stage: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")
    ] = None,
    index: Annotated[
        int | None,
        typer.Option(help="Run only this model of the matrix, from 0; `job merge` joins them."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run and why; write nothing.")
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let model.callable run code of yours.")
    ] = False,
    allow_slow_isa: Annotated[
        bool,
        typer.Option(
            "--allow-slow-isa",
            help="Go on without AVX512_VNNI; the report is then marked not comparable.",
        ),
    ] = False,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Carry a model from the manifest to the report.

    A stage whose settings, inputs and libraries have not changed is not run again, and an
    interrupted stage goes on from its last checkpoint: after a stop, give the same command again.

    \b
    Examples:
      job run manifests/digits.json
      job run manifests/digits.json --set train.max_iters=100 --output runs/quick
      job run manifests/digits.json --dry-run
      job run manifests/digits.json --from benchmark
      generate-manifest | job run - --log-format json
      job run manifests/tutorial-tables.json

    The last holds a matrix: several models, each run in a folder of its own; one report shows all.

    Started by Paddle's launcher, several processes share the steps of stage qat:

    \b
      python -m paddle.distributed.launch --nproc_per_node 2 job run m.json

    \b
    Stages: prepare baseline qat convert int8 accuracy benchmark report
    """
    from job.cli import run as running
    from job.cli.results import failure_of
    from job.distributed.control import Participant, joined
    from job.pipeline.fetch_inputs import localized
    from job.pipeline.output_location import place_of
    from job.ui.choose import make_ui

    with make_ui(log_format) as ui:
        try:
            loaded = _load(manifest, overrides or ())
            running.check_code(loaded, allow_code)
            where = place_of(loaded.output if output is None else output)
            options = running.RunOptions(index, from_stage, until_stage, allow_slow_isa)
            told = partial(ui.message, "processes")
            group = nullcontext() if dry_run else joined(loaded, index, told)
            fetched = localized(loaded, partial(ui.message, "inputs"), index)
            with group as others, fetched as ready:
                if dry_run:
                    as_json = log_format is LogFormat.json
                    running.print_plan_of(ready, where, options, as_json=as_json)
                    return
                if isinstance(others, Participant):
                    _tell(running.train_beside(ready, others, ui))
                    return
                result = running.run(ready, where, options, ui, others)
                if others:
                    others.failure = failure_of(result)
        except JobError as error:
            raise _failed(error, ui) from None
    _finish(result, log_format, ui)


@app.command()
def merge(
    manifest: ManifestArgument,
    overrides: Overrides = None,
    output: OutputOption = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Join what runs of a matrix left, one model each, into one report.

    May be called at any time, and again: the report shows which models have no result yet, and
    which failed. It ends with 0 once all have passed.

    \b
    Examples:
      job run manifests/tutorial-tables.json --index 0     (on one machine)
      job run manifests/tutorial-tables.json --index 1     (on another)
      job merge manifests/tutorial-tables.json
    """
    from job.pipeline import merge
    from job.pipeline.output_location import place_of
    from job.ui.choose import make_ui

    with make_ui(log_format) as ui:
        try:
            loaded = _load(manifest, overrides or ())
            where = place_of(loaded.output if output is None else output)
            result = merge.merge(loaded, output=where, ui=ui)
        except JobError as error:
            raise _failed(error, ui) from None
    _finish(result, log_format, ui)


@app.command()
def score(
    manifest: ManifestArgument,
    shard: Annotated[int, typer.Option(help="Which part, from 0 to accuracy.shards - 1.")],
    overrides: Overrides = None,
    output: OutputOption = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Score one part of a large test split, beside other machines that score the others.

    The models are those of the run so far, which then finds what was scored and does the rest.

    \b
    Examples:
      job run m.json --set accuracy.shards=2 --until int8
      job score m.json --set accuracy.shards=2 --shard 0     (on one machine)
      job score m.json --set accuracy.shards=2 --shard 1     (on another)
      job run m.json --set accuracy.shards=2
    """
    from job.pipeline.output_location import place_of
    from job.pipeline.request import RunRequest
    from job.pipeline.shard_run import run_shard
    from job.stages import stages_for
    from job.ui.choose import make_ui

    with make_ui(log_format) as ui:
        try:
            loaded = _load(manifest, overrides or ())
            where = place_of(loaded.output if output is None else output)
            if loaded.matrix or loaded.data.format == "synthetic":
                raise UsageError(
                    "only a single model with real images is scored in parts",
                    "Give a manifest without a matrix, whose images are not synthetic.",
                )
            done = run_shard(loaded, shard, RunRequest(where, stages_for), ui)
        except JobError as error:
            raise _failed(error, ui) from None
    _tell(f"Part {shard} of {loaded.accuracy.shards} is scored: {done.output}")


@app.command()
def validate(
    manifests: Annotated[
        list[str],
        typer.Argument(metavar="MANIFEST...", help="JSON files, s3://..., or - for stdin."),
    ],
) -> None:
    """Check manifests and list every fault of each.

    \b
    Examples:
      job validate manifests/*.json
      generate-manifest | job validate -
    """
    wrong = False
    for source in manifests:
        try:
            _load(source, ())
        except (ManifestError, UsageError) as error:
            wrong = True
            typer.echo(str(error), err=True)
        else:
            typer.echo(f"{source}: valid")
    if wrong:
        raise typer.Exit(ManifestError.exit_code)


@app.command()
def explain(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Such as train.base_lr; all if left out.")
    ] = None,
) -> None:
    """Say what a manifest's key means, its type, default and allowed values.

    \b
    Examples:
      job explain
      job explain quantize.weight_quantize_type
    """
    from rich.console import Console

    from job.cli.explain import explain as explanations
    from job.cli.explain import render

    render(explanations(key), Console())


@app.command()
def doctor(
    as_json: JsonOption = False,
) -> None:
    """Say whether this machine can do the job, and prove it with a real INT8 inference.

    \b
    Examples:
      job doctor
      job doctor --json
    """
    from job.doctor.checks import examine, print_findings

    diagnosis = examine()
    if as_json:
        typer.echo(json.dumps(diagnosis.as_json(), indent=2))
    else:
        print_findings(diagnosis)
    if not diagnosis.able:
        raise typer.Exit(MachineError.exit_code)


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="DIR|S3URI", help="The output of a finished run.")],
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write the report here; needed for one that is in S3."),
    ] = None,
) -> None:
    """Render a finished run's report again from its report.json.

    Of a run in S3 the tables are printed, and files are written only with --output: nothing in S3
    is changed. The server and the credentials are those of the AWS_* variables.

    \b
    Examples:
      job report runs/digits
      job report s3://results/digits --output report
    """
    from job.cli.results import print_tables
    from job.pipeline.output_location import on_this_machine, place_of
    from job.pipeline.report_files import read, write

    place = place_of(run)
    target = place if output is None else on_this_machine(output, "--output")
    document = read(place, _note)
    if isinstance(target, Path):
        write(document, target, source=place)
    print_tables(document, target)


@app.command()
def fetch(
    run: Annotated[str, typer.Argument(metavar="S3URI", help="The output of a finished run.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder to write to.")],
) -> None:
    """Download a finished run from S3 and check every file.

    What is in the folder already is not fetched again: after a failure, give the same command
    again. The server and the credentials are those of the AWS_* variables.

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
        f"{target}: {done.files} files, {done.bytes:,} bytes, every digest checked"
        f" ({done.there} were there already)"
    )


def _tell(text: str) -> None:
    """Say what a command came to, here and to whoever watches the container."""
    typer.echo(text)
    termination_log.tell(text)


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    sys.excepthook = _report_unexpected
    try:
        # Calling app itself would put typer's own hook, which prints tracebacks, in place of ours.
        typer.main.get_command(app)(prog_name="job")
    except JobError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _report_unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Say in one line what nobody foresaw; Python then ends the process with code 1."""
    lines = traceback.format_exception(kind, error, trace)
    with tempfile.NamedTemporaryFile(
        "w", prefix="job-traceback-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.writelines(lines)
    what = f"unexpected {kind.__name__}: {error}"
    typer.echo(f"error: {what} (traceback: {file.name}; exit {INTERNAL})", err=True)
    termination_log.tell(f"exit {INTERNAL}: {what}")


def _finish(result: "RunResult | MatrixResult", log_format: LogFormat, ui: "Ui") -> None:
    """Print what a command came to, and end with its exit code."""
    from job.cli.results import failure_of, headline_of, print_result

    print_result(result, as_json=log_format is LogFormat.json)
    failure = failure_of(result)
    if failure is not None:
        raise _failed(failure, ui)
    termination_log.tell(headline_of(result))


def _failed(error: JobError, ui: "Ui") -> typer.Exit:
    """Say why the command fails; returns what ends it with the error's exit code."""
    ui.failed(error)
    termination_log.tell(f"exit {error.exit_code}: {error.message}")
    return typer.Exit(error.exit_code)


def _load(source: str, overrides: "Sequence[str]") -> "Manifest":
    from job.manifest import load

    return load(source, overrides)
