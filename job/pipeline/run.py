"""Plans and runs the stages of one model, in order, and writes its report."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.distributed.control import Coordinator
from job.errors import GOES_ON, GateFailed, JobError, UsageError
from job.host import Host, read_host
from job.manifest import Manifest
from job.pipeline import run_report
from job.pipeline.build_report import match_gate
from job.pipeline.fingerprint import library_versions
from job.pipeline.output_location import STORAGE, Location, open_output, open_read_only
from job.pipeline.plan import (
    REPORT,
    RESUMES,
    UNCHANGED,
    PlannedStage,
    Planner,
    check_inputs,
    depending,
    select,
)
from job.pipeline.request import RunRequest
from job.pipeline.stage_runner import StageRow, StageRunner
from job.process.signals import StopSignals
from job.stages.network import check_inference_model
from job.stages.stage import Stage
from job.storage.local import LocalOutput
from job.ui.protocol import StageEvents, Ui


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        output: the folder or S3 prefix that contains the run.
        rows: one row for each selected stage.
        report: content of report.json; None if ``until_stage`` ended the run before the report.
        early_gates: results of the gates that are known without the report.
    """

    output: Location
    rows: tuple[StageRow, ...]
    report: Mapping[str, Any] | None
    early_gates: tuple[Mapping[str, Any], ...] = ()

    @property
    def gates(self) -> Sequence[Mapping[str, Any]]:
        """The results of the gates, as in report.json."""
        return self.report["gates"] if self.report else self.early_gates

    @property
    def failure(self) -> GateFailed | None:
        """The error that names the gates that failed; None if all passed."""
        failed = [gate for gate in self.gates if gate["passed"] is False]
        if not failed:
            return None
        lines = "".join(
            f"\n  {g['name']}: limit {g['limit']:g}, found {g['value']:.3g}"
            + (f". {g['reason']}" if g["reason"] else "")
            for g in failed
        )
        return GateFailed(
            f"{len(failed)} of {len(self.gates)} gates failed:{lines}",
            f"All results are in {self.output}.",
        )

    @property
    def worked(self) -> bool:
        """Whether any stage ran; False if every result was reused."""
        return any(row.status == "ran" for row in self.rows)


def plan(manifest: Manifest, request: RunRequest) -> tuple[PlannedStage, ...]:
    """Return what a run would do. Nothing is written.

    Raises:
        UsageError: a stage that the request names does not exist.
        DataError: the given inference model cannot be read.
    """
    check_inference_model(manifest)
    stages = request.stages_for(manifest)
    selected = chosen_stages(stages, request)
    with tempfile.TemporaryDirectory(prefix="job-") as scratch:
        folder = open_read_only(request.output, manifest, Path(scratch))
        planned = planner_for(manifest, stages, folder, read_host(), request).plan(selected)
        if request.report is None or len(selected) < len(stages):
            return planned
        reason = run_report.reason_to_write(planned, manifest, stages, folder, request)
    report = PlannedStage(
        name=REPORT,
        action="run" if reason else "reuse",
        reason=reason or UNCHANGED,
        reads=tuple(stage.writes for stage in planned),
        writes=request.output / "report.json",
        missing=(),
    )
    return (*planned, report)


def run(
    manifest: Manifest, request: RunRequest, ui: Ui, coordinator: Coordinator | None = None
) -> RunResult:
    """Run the stages whose results cannot be reused, publish each result, and write the report.

    Args:
        manifest: a valid manifest of one model.
        request: which stages to run, and where to write.
        ui: shows progress.
        coordinator: the connections to the other ranks, if several processes train together.

    Raises:
        JobError: a stage raised it; the results of finished stages stay published.
        Stopped: a signal stopped the run.
        TimeLimitReached: the run took longer than the manifest's ``run.max_minutes``.
    """
    stages, host = request.stages_for(manifest), read_host()
    selected = chosen_stages(stages, request)
    folder = open_output(request.output, manifest, StageEvents(ui, STORAGE).warn)
    folder.check_ours([stage.output_dir for stage in stages])
    planner = planner_for(manifest, stages, folder, host, request)
    with StopSignals(limit_seconds(manifest)) as stop, folder.locked() as lock:
        folder.recover([(stage.name, stage.output_dir) for stage in stages])
        runner = StageRunner(planner, ui, stop, lock, request.output, coordinator)
        try:
            planned = planner.plan(selected)
            check_inputs(planned, manifest.base)
            check_inference_model(manifest)
            if len(selected) < len(stages):
                _warn_of_superseded_report(folder, planned, request, ui)
            folder.keep_manifest(manifest.resolved)
            folder.note_failure(None, manifest.resolved)
            for stage in _to_check(selected, planned):
                runner.check_early(stage)
            for stage in selected:
                runner.run_or_reuse(stage)
            report = _report(runner, request) if len(selected) == len(stages) else None
            _warn_of_stale_outputs(planner, stages, selected, ui)
            folder.sync(stop, manifest.run.grace_seconds)
        except JobError as error:
            if not isinstance(error, GOES_ON):
                folder.note_failure(error, manifest.resolved)
            keep_unfinished(folder, stop, manifest, ui)
            raise
        finally:
            folder.save_digests()
    int8 = runner.outputs.get("int8")
    early = tuple(match_gate(manifest, int8.record["agreement"])) if int8 else ()
    return RunResult(request.output, tuple(runner.rows), report, early)


def _to_check(stages: Sequence[Stage], planned: Sequence[PlannedStage]) -> Iterator[Stage]:
    """Yield the stages that start new work after another stage has run."""
    waits = False
    for stage, decision in zip(stages, planned, strict=True):
        runs = decision.action == "run"
        if waits and runs and not decision.reason.endswith(RESUMES):
            yield stage
        waits = waits or runs


def chosen_stages(stages: Sequence[Stage], request: RunRequest) -> tuple[Stage, ...]:
    """Return the stages up to ``until_stage``.

    Raises:
        UsageError: a stage does not exist, or ``from_stage`` comes after ``until_stage``.
    """
    selected = select(stages, request.until_stage)
    forced = depending(stages, request.from_stage)
    ends_early = request.from_stage == REPORT and len(selected) < len(stages)
    if ends_early or (forced and forced.isdisjoint(stage.name for stage in selected)):
        raise UsageError(
            f"--until {request.until_stage} ends before --from {request.from_stage} begins",
            "Give --until a later stage, or omit --until.",
        )
    return selected


def planner_for(
    manifest: Manifest,
    stages: Sequence[Stage],
    folder: LocalOutput,
    host: Host,
    request: RunRequest,
) -> Planner:
    """Return the planner of a run with its output in ``folder``."""
    return Planner(
        manifest=manifest,
        output=folder,
        versions=library_versions(),
        host=host,
        forced=depending(stages, request.from_stage),
        from_stage=request.from_stage,
    )


def limit_seconds(manifest: Manifest) -> float | None:
    """Return the time limit of the whole job, or None."""
    return None if manifest.run.max_minutes is None else manifest.run.max_minutes * 60


def keep_unfinished(folder: LocalOutput, stop: StopSignals, manifest: Manifest, ui: Ui) -> None:
    """Upload unfinished work of a run that failed.

    A failed upload is only a warning, because the caller raises the error that ended the run.
    """
    try:
        folder.sync(stop, manifest.run.grace_seconds)
    except JobError as error:
        StageEvents(ui, STORAGE).warn(
            f"the upload of unfinished work failed, so it exists only on this machine: {error}"
        )


def _report(runner: StageRunner, request: RunRequest) -> Mapping[str, Any] | None:
    if request.report is None:
        return None
    return runner.report(request.report, forced=request.from_stage == REPORT)


def _warn_of_superseded_report(
    folder: LocalOutput, planned: Sequence[PlannedStage], request: RunRequest, ui: Ui
) -> None:
    """Warn if a run that ends before its report changes what an earlier report describes."""
    runs = next((stage.name for stage in planned if stage.action == "run"), None)
    if runs is None or not folder.has_report:
        return
    what = (
        f"this run writes no report. The report of the finished run in {request.output} remains "
        "available, but does not describe the new results"
        if folder.keeps_report
        else f"this run removes the report of the finished run in {request.output}"
    )
    StageEvents(ui, STORAGE).warn(
        f"--until {request.until_stage}: stage {runs} runs, so {what}. "
        "Run without --until to write a new report."
    )


def _warn_of_stale_outputs(
    planner: Planner, stages: Sequence[Stage], selected: Sequence[Stage], ui: Ui
) -> None:
    for output_dir in _stale_outputs(planner, stages, selected):
        StageEvents(ui, STORAGE).warn(
            f"{output_dir}/ is stale, because an earlier run with other settings or inputs wrote "
            "this folder. Run without --until to update the folder."
        )


def _stale_outputs(
    planner: Planner, stages: Sequence[Stage], selected: Sequence[Stage]
) -> Iterator[str]:
    """Yield the output folders of later stages that do not match the stages that have run."""
    if len(selected) == len(stages):
        return
    planned = replace(planner, forced=frozenset()).plan(stages)
    for stage, decision in zip(stages, planned, strict=True):
        if (
            stage not in selected
            and decision.action == "run"
            and planner.output.published(stage.output_dir)
        ):
            yield stage.output_dir
