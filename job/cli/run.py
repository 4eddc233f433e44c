"""What ``job run`` does with a manifest on this machine: plan it, run it, or train beside it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.cli.results import print_plan, print_plans
from job.errors import MachineError
from job.host import Host, read_host
from job.manifest import Manifest, entries
from job.manifest.custom_code import check_allowed
from job.pipeline import matrix, merge
from job.pipeline import run as pipeline
from job.pipeline.build_report import build
from job.pipeline.follower import follow
from job.pipeline.plan import check_inputs
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
    """How much of a manifest to run, and on which machines.

    Attributes:
        index: the one model of a matrix to run, from 0.
        from_stage: the first stage to run anew.
        until_stage: the last stage to run.
        allow_slow_isa: go on without AVX512_VNNI.
    """

    index: int | None
    from_stage: str | None
    until_stage: str | None
    allow_slow_isa: bool


def check_code(manifest: Manifest, allowed: bool) -> None:
    """Refuse to run a manifest's code unasked, whichever model of a matrix it is of."""
    for single in entries(manifest) or (manifest,):
        check_allowed(single, allow_code=allowed)


def run(
    manifest: Manifest,
    output: "Location",
    asked: RunOptions,
    ui: "Ui",
    leader: "Coordinator | None",
) -> "RunResult | MatrixResult":
    """Run a manifest.

    Args:
        leader: leads the processes that train together, if there are several.

    Raises:
        MachineError: this CPU has no AVX512_VNNI, or an engine is not installed.
    """
    host = read_host()
    _check_machine(host, asked.allow_slow_isa)
    _check_engines(manifest)
    where: dict[str, Any] = {"output": output, "ui": ui, **_how(host, asked)}
    if asked.index is not None:
        return merge.run_index(manifest, asked.index, stages_for=stages_for, **where)
    if manifest.matrix:
        return matrix.run(manifest, stages_for=stages_for, **where)
    return pipeline.run(manifest, stages=stages_for(manifest), leader=leader, **where)


def train_beside(manifest: Manifest, follower: "Participant", ui: "Ui") -> str:
    """Train beside rank 0, which writes everything; returns what to tell of it."""
    follow(manifest, follower, stages=stages_for(manifest), ui=ui)
    return f"{follower.group.name}: rank 0 has finished; the results are where it wrote them"


def print_plan_of(
    manifest: Manifest, output: "Location", asked: RunOptions, *, as_json: bool
) -> None:
    """Print what a run would do, and fail as it would when something it reads is missing."""
    how = _how(read_host(), asked)
    if asked.index is not None:
        name, manifest = merge.model_at(manifest, asked.index)
        output /= name
    if manifest.matrix:
        plans = matrix.plan(manifest, stages_for=stages_for, output=output, **how)
        print_plans(plans, as_json=as_json)
        check_inputs(matrix.flat(plans), manifest.base)
        return
    planned = pipeline.plan(manifest, stages=stages_for(manifest), output=output, **how)
    print_plan(planned, as_json=as_json)
    check_inputs(planned, manifest.base)


def _how(host: Host, asked: RunOptions) -> dict[str, Any]:
    """Return what a run and its plan are both given."""
    notes = () if host.has_vnni else (f"not comparable: {host.cpu_model} has no AVX512_VNNI",)
    return {
        "reporting": pipeline.ReportConfig(build=build, notes=notes, comparable=host.has_vnni),
        "from_stage": asked.from_stage,
        "until_stage": asked.until_stage,
    }


def _check_machine(host: Host, allow_slow_isa: bool) -> None:
    """Refuse a CPU on which INT8 is neither quick nor exact."""
    if not host.has_vnni and not allow_slow_isa:
        raise MachineError(
            f"this CPU ({host.cpu_model}) has no AVX512_VNNI: INT8 would be slow, and sums of "
            "products could overflow 16 bits",
            "Use a machine that has it (`job doctor` tells), or go on with --allow-slow-isa: the "
            "report is then marked not comparable.",
        )


def _check_engines(manifest: Manifest) -> None:
    """Refuse engines that are not installed, before anything runs."""
    for single in entries(manifest) or (manifest,):
        check_installed(single.benchmark.engines)
