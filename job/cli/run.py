"""``job run`` on this machine: print a plan, run a manifest, or train together with rank 0."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.cli.model_checks import check_models
from job.cli.results import print_plan, print_plans
from job.errors import MachineError
from job.host import Host, read_host
from job.manifest import Manifest, entries
from job.manifest.custom_code import check_allowed
from job.pipeline import matrix, merge
from job.pipeline import run as pipeline
from job.pipeline.build_report import build
from job.pipeline.follower import train_with_rank_zero
from job.pipeline.plan import check_inputs, select
from job.pipeline.request import ReportConfig, RunRequest
from job.stages import stages_for
from job.stages.engine_packages import check_installed

if TYPE_CHECKING:
    from job.distributed.control import Coordinator, Participant
    from job.pipeline.matrix import MatrixResult
    from job.pipeline.output_location import Location
    from job.pipeline.run import RunResult
    from job.ui.protocol import Ui


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


def check_code(manifest: Manifest, allowed: bool) -> None:
    """Check that the user allowed custom code, if a model of the manifest needs it.

    Raises:
        UsageError: the manifest runs custom code, and ``allowed`` is False.
    """
    for single in entries(manifest) or (manifest,):
        check_allowed(single, allow_code=allowed)


def check_model(manifest: Manifest, source: str, options: RunOptions) -> None:
    """Check the model before any stage runs; see :func:`job.cli.model_checks.check_models`.

    Args:
        manifest: a manifest of one model or of a matrix, with its inputs on this machine.
        source: the manifest's name in messages.
        options: options of the run.
    """
    singles = entries(manifest) or (manifest,)
    made = (select(stages_for(single), options.until_stage) for single in singles)
    needs_weights = any(stage.name == "baseline" for stages in made for stage in stages)
    check_models(manifest, source, index=options.index, needs_weights=needs_weights)


def run(
    manifest: Manifest,
    output: "Location",
    options: RunOptions,
    ui: "Ui",
    coordinator: "Coordinator | None",
) -> "RunResult | MatrixResult":
    """Run a manifest.

    Args:
        manifest: a valid manifest.
        output: the folder or S3 prefix to write to.
        options: which model and stages to run.
        ui: shows progress.
        coordinator: the connections to the other ranks, if several processes train together.

    Raises:
        MachineError: this CPU has no AVX512_VNNI, or an engine is not installed.
        JobError: as for :func:`job.pipeline.run.run`.
    """
    host = read_host()
    _check_machine(host, options.allow_slow_isa)
    _check_engines(manifest)
    request = _request(host, output, options)
    if options.index is not None:
        return merge.run_index(manifest, options.index, request, ui)
    if manifest.matrix:
        return matrix.run(manifest, request, ui)
    return pipeline.run(manifest, request, ui, coordinator)


def train_beside(manifest: Manifest, participant: "Participant", ui: "Ui") -> str:
    """Train together with rank 0, which writes all results. Returns the last message."""
    train_with_rank_zero(manifest, participant, stages=stages_for(manifest), ui=ui)
    return f"{participant.group.name}: done; rank 0 has written the results"


def print_plan_of(
    manifest: Manifest, output: "Location", options: RunOptions, *, as_json: bool
) -> None:
    """Print what a run would do.

    Raises:
        DataError: an input of the run is missing.
    """
    request = _request(read_host(), output, options)
    if options.index is not None:
        name, manifest = merge.model_at(manifest, options.index)
        request = request.for_model(name)
    if manifest.matrix:
        plans = matrix.plan(manifest, request)
        print_plans(plans, as_json=as_json)
        check_inputs(matrix.flat(plans), manifest.base)
        return
    planned = pipeline.plan(manifest, request)
    print_plan(planned, as_json=as_json)
    check_inputs(planned, manifest.base)


def _request(host: Host, output: "Location", options: RunOptions) -> RunRequest:
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
            "products could overflow 16 bits",
            "Use a CPU with AVX512_VNNI (`job doctor` checks a machine), or add --allow-slow-isa: "
            "the report is then marked not comparable.",
        )


def _check_engines(manifest: Manifest) -> None:
    """Check that all engines are installed, before anything runs."""
    for single in entries(manifest) or (manifest,):
        check_installed(single.benchmark.engines)
