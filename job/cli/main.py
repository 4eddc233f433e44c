"""The commands of ``job``: parse arguments, call the lower packages, print the result.

Each command imports its modules when it runs. Imports at the top would slow down ``--help``.
"""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from job import __version__
from job.cli import anchors, compare, finished_run, init, k8s, predict, validate
from job.cli.options import (
    JsonOption,
    JunitOption,
    LogFormat,
    LogFormatOption,
    ManifestArgument,
    OutputOption,
    Overrides,
)
from job.cli.outcome import failed, finish, report_unexpected, succeeded
from job.errors import JobError, MachineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.manifest import Manifest
    from job.pipeline.output_location import Location

_EPILOG = """\b
Exit codes:
  0  success
  1  any other error
  2  the manifest or the command line is invalid
  3  a gate failed; all artifacts and the report are written
  4  data or weights are missing or corrupt
  5  this machine cannot run the job
  128 + N  stopped by signal N

\b
First steps:
  job doctor                          check this machine
  job run digits                      run a small example in a few minutes
  job init --data DIR                 write a manifest for your images
  job explain train.base_lr           explain a manifest key
"""

app = typer.Typer(
    name="job",
    help="Build an INT8 model from a JSON manifest, and report its accuracy and speed. The stages "
    "are FP32 baseline, quantization-aware training, oneDNN INT8 and benchmark.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Help rendered by rich takes 0.25 s longer.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(init.app)
app.add_typer(anchors.app)
app.add_typer(finished_run.app)
app.add_typer(compare.app)
app.add_typer(validate.app)
app.add_typer(predict.app)
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
        typer.Option(
            "--from",
            metavar="STAGE",
            help="Run this stage, and the stages that depend on it, even if nothing changed.",
        ),
    ] = None,
    until_stage: Annotated[
        str | None,
        typer.Option("--until", metavar="STAGE", help="Stop after this stage."),
    ] = None,
    index: Annotated[
        int | None,
        typer.Option(
            help="Run only the model at this position of the matrix, from 0. `job merge` combines "
            "the results."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print which stages would run, why, and how long they take. Write nothing.",
        ),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="With --dry-run: measure this machine for about 10 s, for more accurate times.",
        ),
    ] = False,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Allow the run to execute the Python code in the manifest's model.callable.",
        ),
    ] = False,
    allow_slow_isa: Annotated[
        bool,
        typer.Option(
            "--allow-slow-isa",
            help="Run on a CPU without AVX512_VNNI. The report is marked as not comparable.",
        ),
    ] = False,
    junit: JunitOption = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Run all stages of a manifest, from the data to the report.

    The result of a stage is reused if its settings, inputs and libraries have not changed. To
    resume an interrupted run, run the same command again. Training resumes from its last
    checkpoint.

    \b
    Examples:
      job run manifests/digits.json
      job run manifests/digits.json --set train.max_iters=100 --output runs/quick
      job run manifests/digits.json --dry-run --probe
      job run manifests/digits.json --from benchmark
      cat m.json | job run - --log-format json
      job run manifests/tutorial-tables.json

    manifests/tutorial-tables.json contains several models (a matrix). Each model has its own
    output folder. One report compares the models.

    To train stage qat with several processes, use Paddle's launcher:

    \b
      python -m paddle.distributed.launch --nproc_per_node 2 job run m.json

    \b
    Stages: prepare baseline calibrate qat convert int8 paddle_openvino openvino
    onnxruntime accuracy benchmark report
    """
    from job.api import execution
    from job.cli.junit import junit_path, write_junit
    from job.cli.run import print_plan_of
    from job.ui.choose import make_ui

    with make_ui(log_format) as ui:
        try:
            if probe and not dry_run:
                raise UsageError("--probe needs --dry-run", "Add --dry-run, or omit --probe.")
            gates = junit_path(junit, until_stage)
            if dry_run:
                loaded, location = execution.load_with_output(manifest, overrides or (), output)
                options = execution.RunOptions(index, from_stage, until_stage, allow_slow_isa)
                execution.check(loaded, manifest, options, allow_code=allow_code)
                with execution.ready_inputs(
                    loaded, manifest, options, ui, reuse_listing=True
                ) as ready:
                    as_json = log_format is LogFormat.json
                    print_plan_of(ready, location, options, probe=probe, as_json=as_json)
                return
            result = execution.run(
                manifest,
                overrides=overrides or (),
                output=output,
                index=index,
                from_stage=from_stage,
                until_stage=until_stage,
                allow_code=allow_code,
                allow_slow_isa=allow_slow_isa,
                ui=ui,
            )
        except JobError as error:
            raise failed(error, ui) from None
    if result is None:
        succeeded("Done; rank 0 has written the results.")
        return
    if gates is not None and result.report is not None:
        write_junit(result.report, gates)
    finish(result, log_format, ui)


@app.command()
def merge(
    manifest: ManifestArgument,
    overrides: Overrides = None,
    output: OutputOption = None,
    junit: JunitOption = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Combine the per-model results of a matrix into one report.

    Run the command at any time, as often as needed. The report shows which models failed and
    which have no result yet. The exit code is 0 if all models have passed.

    \b
    Examples:
      job run manifests/tutorial-tables.json --index 0     (on one machine)
      job run manifests/tutorial-tables.json --index 1     (on another)
      job merge manifests/tutorial-tables.json
    """
    from job.cli.junit import junit_path, write_junit
    from job.pipeline import merge
    from job.ui.choose import make_ui

    with make_ui(log_format) as ui:
        try:
            gates = junit_path(junit)
            loaded, location = _load_with_output(manifest, overrides, output)
            result = merge.merge(loaded, output=location, ui=ui)
        except JobError as error:
            raise failed(error, ui) from None
    if gates is not None and result.report is not None:
        write_junit(result.report, gates)
    finish(result, log_format, ui)


@app.command()
def score(
    manifest: ManifestArgument,
    shard: Annotated[
        int, typer.Option(help="Number of the part (shard), from 0 to accuracy.shards - 1.")
    ],
    overrides: Overrides = None,
    output: OutputOption = None,
    log_format: LogFormatOption = LogFormat.text,
) -> None:
    """Score one shard (part) of a large test split on this machine.

    Other machines score the other shards. First run all stages before accuracy, because scoring
    reads the saved models. `job run --dry-run` lists the stages. The next `job run` reuses the
    scored shards and scores the missing shards.

    \b
    Examples:
      job run m.json --set accuracy.shards=2 --until paddle_openvino
      job score m.json --set accuracy.shards=2 --shard 0     (on one machine)
      job score m.json --set accuracy.shards=2 --shard 1     (on another)
      job run m.json --set accuracy.shards=2
    """
    from job.pipeline.request import RunRequest
    from job.pipeline.shard_run import run_shard
    from job.stages import stages_for
    from job.ui.choose import make_ui

    with make_ui(log_format) as ui:
        try:
            loaded, location = _load_with_output(manifest, overrides, output)
            if loaded.matrix or loaded.data.format == "synthetic":
                raise UsageError(
                    "`job score` needs a manifest of one model with real images",
                    "Use a manifest without a matrix and with another data.format than synthetic.",
                )
            result = run_shard(loaded, shard, RunRequest(location, stages_for), ui)
        except JobError as error:
            raise failed(error, ui) from None
    succeeded(f"Scored shard {shard} (0 to {loaded.accuracy.shards - 1}): {result.output}")


@app.command()
def explain(
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="Key such as train.base_lr. Default: all keys."),
    ] = None,
) -> None:
    """Explain a manifest key: meaning, default, allowed values.

    \b
    Examples:
      job explain
      job explain quantize.weight_quantize_type
    """
    from rich.console import Console

    from job.cli.explain import explain as explanations
    from job.cli.explain import render

    render(explanations(key), Console())


@app.command(short_help="Check whether this machine can run the job.")
def doctor(
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine can run the job. One check runs a small INT8 model.

    The exit code is 5 if the machine cannot run the job.

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


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    sys.excepthook = report_unexpected
    try:
        # app() would replace our excepthook by typer's, which prints tracebacks.
        typer.main.get_command(app)(prog_name="job")
    except JobError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _load_with_output(
    source: str, overrides: "Sequence[str] | None", output: str | None
) -> "tuple[Manifest, Location]":
    """Return the manifest, and the location from --output or from the manifest."""
    from job.api.execution import load_with_output

    return load_with_output(source, overrides or (), output)
