"""Runs a manifest on this machine, or trains together with rank 0."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from job.api import mlflow_log
from job.api.model_checks import check_models, chosen
from job.api.output_checks import check_output
from job.api.validation import Source, name_of, read_manifest
from job.benchmark import cpu_pinning
from job.distributed.control import Coordinator, Participant, joined
from job.errors import MachineError, UsageError
from job.host import Host, read_host
from job.isa import CAP_VARIABLES
from job.manifest import Manifest, entries
from job.manifest.custom_code import check_allowed
from job.pipeline import matrix, merge
from job.pipeline import run as pipeline
from job.pipeline.build_report import build
from job.pipeline.fetch_inputs import localized
from job.pipeline.follower import train_with_rank_zero
from job.pipeline.matrix import MatrixResult
from job.pipeline.output_location import Location, place_of
from job.pipeline.plan import select
from job.pipeline.request import ReportConfig, RunRequest
from job.pipeline.run import RunResult
from job.stages import stages_for
from job.stages.benchmark import settings_under
from job.stages.engine_packages import check_installed
from job.ui.choose import make_ui
from job.ui.protocol import StageEvents, Ui


@dataclass(frozen=True)
class RunOptions:
    """Options of ``job run``.

    Attributes:
        index: position of the one model of a matrix to run, from 0; None runs all models.
        from_stage: this stage and the stages that depend on it run even if nothing changed.
        until_stage: the last stage to run.
        allow_slow_isa: run on a CPU without AVX512_VNNI.
    """

    index: int | None
    from_stage: str | None
    until_stage: str | None
    allow_slow_isa: bool


def run(
    manifest: Source,
    *,
    overrides: Sequence[str] = (),
    output: str | os.PathLike[str] | None = None,
    index: int | None = None,
    from_stage: str | None = None,
    until_stage: str | None = None,
    allow_code: bool = False,
    allow_slow_isa: bool = False,
    ui: Ui | None = None,
) -> RunResult | MatrixResult | None:
    """Run the stages of a manifest, from the data to the report, as ``job run``.

    The result of a stage is reused if its settings, inputs and libraries have not changed. Each
    stage runs in its own process, so this process imports no Paddle. Call the function in the main
    thread, because it handles SIGTERM and SIGINT while it runs.

    If ``MLFLOW_TRACKING_URI`` is set and mlflow is installed, parameters, metrics and the report
    are logged there.

    Args:
        manifest: path of a JSON file, its ``s3://`` URI, ``-`` for standard input, or the content
            as a mapping. Paths in a mapping are relative to the current directory.
        overrides: texts such as ``train.max_iters=100``.
        output: folder or ``s3://`` URI, instead of the manifest's output.
        index: position of the one model of a matrix to run, from 0; None runs all models.
        from_stage: this stage and the stages that depend on it run even if nothing changed.
        until_stage: the last stage to run.
        allow_code: allow the code that ``model.callable`` names.
        allow_slow_isa: run on a CPU without AVX512_VNNI.
        ui: shows progress; None writes text to standard error.

    Returns:
        The result, also if a gate failed: ``failure`` is the error of the failed gates or models,
        ``report`` is the content of report.json. None in a process of a distributed training other
        than rank 0, because rank 0 writes all results.

    Raises:
        ManifestError: the manifest is invalid; ``faults`` lists every fault.
        UsageError: an argument is invalid, or code is not allowed.
        DataError: data or weights are missing or corrupt.
        MachineError: this CPU has no AVX512_VNNI, or an engine is not installed.
        Stopped: a signal stopped the run; the same call resumes it.
        JobError: a stage failed, or the output cannot be written.
    """
    loaded, location = load_with_output(manifest, overrides, output)
    options = RunOptions(index, from_stage, until_stage, allow_slow_isa)
    check(loaded, name_of(manifest), options, allow_code=allow_code)
    with nullcontext(ui) if ui else make_ui("text") as shown:
        result = _run_beside(loaded, name_of(manifest), location, options, shown)
        if result is not None:
            events = StageEvents(shown, "mlflow")
            mlflow_log.log(result, events.message, events.warn)
    return result


def _run_beside(
    loaded: Manifest, source: str, location: Location, options: RunOptions, ui: Ui
) -> RunResult | MatrixResult | None:
    """Run a manifest together with the other processes of a distributed training, if any."""
    with (
        joined(loaded, options.index, StageEvents(ui, "processes").message) as peer,
        ready_inputs(loaded, source, options, ui) as ready,
    ):
        if isinstance(peer, Participant):
            train_with_rank_zero(ready, peer, stages=stages_for(ready), ui=ui)
            return None
        result = _run(ready, location, options, ui, peer)
        if peer:
            peer.failure = result.failure
    return result


def load_with_output(
    manifest: Source, overrides: Sequence[str], output: str | os.PathLike[str] | None
) -> tuple[Manifest, Location]:
    """Return the manifest, and the location from ``output`` or from the manifest.

    Raises:
        UsageError: the manifest or the location is invalid.
        DataError: a manifest in S3 is missing, or access is denied.
    """
    loaded = read_manifest(manifest, overrides)
    place = place_of(loaded.output if output is None else os.fspath(output))
    check_output(loaded, place)
    return loaded, place


def check(manifest: Manifest, source: str, options: RunOptions, *, allow_code: bool) -> None:
    """Check before any stage runs what needs neither Paddle nor files from S3.

    Args:
        manifest: a manifest of one model or of a matrix.
        source: the manifest's name in messages.
        options: options of the run.
        allow_code: whether the user allowed custom code.

    Raises:
        UsageError: the manifest runs custom code, and ``allow_code`` is False.
        JobError: as for :func:`job.api.model_checks.check_models`.
    """
    for single in entries(manifest) or (manifest,):
        check_allowed(single, allow_code=allow_code)
    _check_model(manifest, source, options)


@contextmanager
def ready_inputs(
    manifest: Manifest,
    source: str,
    options: RunOptions,
    ui: Ui,
    *,
    reuse_listing: bool = False,
) -> Iterator[Manifest]:
    """Download the inputs from S3, check them, and yield the manifest with their local paths.

    Args:
        manifest: the manifest.
        source: its name in messages.
        options: select the model of a matrix.
        ui: shows messages.
        reuse_listing: see :func:`localized`.
    """
    say = StageEvents(ui, "inputs").message
    with localized(manifest, say, options.index, reuse_listing=reuse_listing) as ready:
        if ready is not manifest:
            # Now the files from S3 are on this machine too.
            _check_model(ready, source, options)
        yield ready


def _check_model(manifest: Manifest, source: str, options: RunOptions) -> None:
    singles = entries(manifest) or (manifest,)
    made = (select(stages_for(single), options.until_stage) for single in singles)
    needs_weights = any(stage.name == "baseline" for stages in made for stage in stages)
    check_models(manifest, source, index=options.index, needs_weights=needs_weights)


def _run(
    manifest: Manifest,
    output: Location,
    options: RunOptions,
    ui: Ui,
    coordinator: Coordinator | None,
) -> RunResult | MatrixResult:
    host = read_host()
    _check_machine(host, options.allow_slow_isa)
    _check_environment()
    singles = chosen(manifest, options.index)
    _check_engines(singles)
    _check_cores(singles, options.until_stage)
    request = request_of(host, output, options)
    if options.index is not None:
        return merge.run_index(manifest, options.index, request, ui)
    if manifest.matrix:
        return matrix.run(manifest, request, ui)
    return pipeline.run(manifest, request, ui, coordinator)


def request_of(host: Host, output: Location, options: RunOptions) -> RunRequest:
    """Return the request for a run or a plan on this machine."""
    notes = () if host.has_vnni else (f"not comparable: {host.cpu_model} has no AVX512_VNNI",)
    return RunRequest(
        output=output,
        stages_for=stages_for,
        report=ReportConfig(build=build, notes=notes, comparable=host.has_vnni),
        from_stage=options.from_stage,
        until_stage=options.until_stage,
    )


def _check_machine(host: Host, allow_slow_isa: bool) -> None:
    """Check that INT8 is fast and exact on this CPU."""
    if not host.has_vnni and not allow_slow_isa:
        raise MachineError(
            f"this CPU ({host.cpu_model}) has no AVX512_VNNI: INT8 would be slow, and sums of "
            "products could saturate at 16 bits",
            "Use a CPU with AVX512_VNNI (`job doctor` checks a machine), or add --allow-slow-isa: "
            "the report is then marked not comparable.",
        )


def _check_environment() -> None:
    """Check that no variable caps the kernels.

    oneDNN obeys such a variable wherever the benchmark sets no cap of its own. A part of the
    report would then describe capped kernels.
    """
    for name in CAP_VARIABLES:
        if os.environ.get(name):
            raise UsageError(
                f"{name}={os.environ[name]} is set: it caps only a part of the measurements",
                f"Unset {name}. To measure with capped kernels, set benchmark.isa.",
            )


def _check_cores(singles: Sequence[Manifest], until_stage: str | None) -> None:
    """Check that the benchmark has enough cores, before hours of training."""
    for single in singles:
        selected = select(stages_for(single), until_stage)
        if any(stage.name == "benchmark" for stage in selected):
            cpu_pinning.check(settings_under(single.benchmark.isa[0], single))


def _check_engines(singles: Sequence[Manifest]) -> None:
    """Check that all engines are installed, before anything runs."""
    for single in singles:
        check_installed(single.benchmark.engines)
