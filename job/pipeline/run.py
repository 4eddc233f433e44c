"""Runs the stages that must run, in order, and keeps what they leave."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from job.distributed.control import Coordinator
from job.distributed.group import Rendezvous
from job.errors import GOES_ON, JobError, PeerLost, UsageError
from job.host import Host, read_host
from job.manifest import Manifest
from job.pipeline.fetch_inputs import as_json
from job.pipeline.fingerprint import key_of, library_versions
from job.pipeline.output_location import Location, open_output, open_read_only
from job.pipeline.plan import (
    REPORT,
    PlannedStage,
    Planner,
    Verdict,
    check_inputs,
    depending,
    digest_of,
    select,
)
from job.pipeline.report_files import (
    Renderer,
    render_files,
    report_key,
    reusable,
    write_or_reuse,
)
from job.pipeline.shards import finished_parts, place_of_part, roomy_folder, what_it_needs
from job.pipeline.stage_process import StageTask, run_stage
from job.process.environment import environment
from job.process.signals import StopSignals
from job.stages.stage import Record, Stage, StageOutput
from job.storage.local import LocalOutput, Published
from job.ui.protocol import Ui

STORAGE = "storage"
_REPORT_CHANGED = "what it tells of changed"

ReportBuilder = Callable[
    [Manifest, Mapping[str, StageOutput], Sequence[Mapping[str, Any]], Sequence[str]],
    Mapping[str, Any],
]


@dataclass(frozen=True)
class StageRow:
    """How a stage fared, as ``stages[]`` of report.json has it; ``status`` is ran or reused."""

    name: str
    status: str
    seconds: float
    key: str


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        output: where it was written.
        rows: one for each stage that was asked for.
        report: report.json's content; None when ``until_stage`` ended the run before it.
    """

    output: Location
    rows: tuple[StageRow, ...]
    report: Mapping[str, Any] | None

    @property
    def worked(self) -> bool:
        """True unless everything was reused."""
        return any(row.status == "ran" for row in self.rows)


@dataclass(frozen=True)
class ReportConfig:
    """How report.json is made and rendered.

    Attributes:
        build: makes the report from what the stages left.
        render: returns the content of each file to write, by name.
        notes: remarks to show in it.
        comparable: False when this machine's figures must not be compared with others.
    """

    build: ReportBuilder
    render: Renderer = render_files
    notes: tuple[str, ...] = ()
    comparable: bool = True


def plan(
    manifest: Manifest,
    *,
    stages: Sequence[Stage],
    output: Location,
    reporting: ReportConfig | None = None,
    from_stage: str | None = None,
    until_stage: str | None = None,
) -> tuple[PlannedStage, ...]:
    """Tell what a run would do; nothing is written.

    Args:
        manifest: the valid manifest.
        stages: all stages, in order.
        output: where the run is, or would be, written.
        reporting: how the report would be made; None leaves it out of the plan.
        from_stage: as for :func:`run`.
        until_stage: as for :func:`run`.

    Raises:
        UsageError: there is no such stage.
    """
    selected = chosen_stages(stages, from_stage, until_stage)
    with tempfile.TemporaryDirectory(prefix="job-") as scratch:
        folder = open_read_only(output, manifest, Path(scratch))
        planned = _planner(manifest, stages, folder, from_stage, read_host()).plan(selected)
        if reporting is None or len(selected) < len(stages):
            return planned
        reason = _why_report(planned, manifest, stages, folder, reporting, from_stage)
    report = PlannedStage(
        name=REPORT,
        action="run" if reason else "reuse",
        reason=reason or "nothing changed",
        reads=tuple(stage.writes for stage in planned),
        writes=output / "report.json",
        missing=(),
    )
    return (*planned, report)


def _why_report(
    planned: Sequence[PlannedStage],
    manifest: Manifest,
    stages: Sequence[Stage],
    folder: LocalOutput,
    reporting: ReportConfig,
    from_stage: str | None,
) -> str:
    """Return why the report would be written, or nothing if it would not."""
    if from_stage == REPORT:
        return f"--from {REPORT}"
    if any(stage.action == "run" for stage in planned):
        return "stages before it run"
    left = {stage.name: folder.published(stage.output_dir) for stage in stages}
    told = {name: (each.key, digest_of(each)) for name, each in left.items() if each}
    key = _report_key(manifest, told, reporting)
    return "" if reusable(folder.root, key) is not None else _REPORT_CHANGED


def _report_key(
    manifest: Manifest, stages: Mapping[str, tuple[str, str]], reporting: ReportConfig
) -> str:
    """Return the report's cache key; it does not depend on which stages ran this time.

    Args:
        manifest: the valid manifest.
        stages: key and output digest of each stage.
        reporting: how the report is made.
    """
    return report_key(
        manifest=manifest.resolved,
        stages=stages,
        notes=reporting.notes,
        comparable=reporting.comparable,
    )


def run(
    manifest: Manifest,
    *,
    stages: Sequence[Stage],
    output: Location,
    ui: Ui,
    reporting: ReportConfig,
    from_stage: str | None = None,
    until_stage: str | None = None,
    leader: Coordinator | None = None,
) -> RunResult:
    """Run what must run, publish each result, and write the report.

    Args:
        manifest: the valid manifest.
        stages: all stages, in order.
        output: where it is written; a folder is created when missing.
        ui: is told of everything.
        reporting: how the report is made.
        from_stage: a stage that runs whatever was left, as do those that need it.
        until_stage: the last stage to run; no report is made unless it is the last of all.
        leader: leads the other processes, if several train together.

    Raises:
        JobError: as stages raise it; finished stages stay published.
        Stopped: a signal came.
        TimeLimitReached: the time of the manifest's run.max_minutes was over.
    """
    selected = chosen_stages(stages, from_stage, until_stage)
    host = read_host()
    folder = open_output(output, manifest, lambda text: ui.message(STORAGE, text, "warning"))
    folder.check_ours([stage.output_dir for stage in stages])
    planner = _planner(manifest, stages, folder, from_stage, host)
    with StopSignals(limit_seconds(manifest)) as stop, folder.locked() as lock:
        folder.recover([(stage.name, stage.output_dir) for stage in stages])
        try:
            check_inputs(planner.plan(selected), manifest.base)
            folder.keep_manifest(manifest.resolved)
            folder.note_failure(None, manifest.resolved)
            task = _task_maker(manifest, folder, host, lock)
            course = StageRunner(planner, ui, stop, task, output, leader)
            for stage in selected:
                course.pass_stage(stage)
            complete = len(selected) == len(stages)
            again = from_stage == REPORT
            report = course.report(reporting, again=again) if complete else None
            for output_dir in () if complete else _left_over(planner, stages, selected):
                told = f"{output_dir}/ is still of an earlier run, with other settings or inputs"
                ui.message(STORAGE, told, "warning")
            folder.sync(stop, manifest.run.grace_seconds)
        except JobError as error:
            if not isinstance(error, GOES_ON):
                folder.note_failure(error, manifest.resolved)
            keep_unfinished(folder, stop, manifest, ui)
            raise
        finally:
            folder.save_digests()
    return RunResult(output, tuple(course.rows), report)


def _left_over(
    planner: Planner, stages: Sequence[Stage], selected: Sequence[Stage]
) -> Iterator[str]:
    """Yield the folders of later stages that do not belong to what was run."""
    planned = replace(planner, forced=frozenset()).plan(stages)
    for stage, each in zip(stages, planned, strict=True):
        if (
            stage not in selected
            and each.action == "run"
            and planner.output.published(stage.output_dir)
        ):
            yield stage.output_dir


def run_shard(
    manifest: Manifest, number: int, *, stages: Sequence[Stage], output: Location, ui: Ui
) -> RunResult:
    """Do one part of what can be done in parts, beside runs that do the others.

    Args:
        manifest: the valid manifest.
        number: which part, from 0.
        stages: all stages, in order.
        output: that of the whole run, whose earlier stages are read.
        ui: is told of everything.

    Raises:
        UsageError: there is no such part.
        DataError: the run has not come that far.
        JobError: as :func:`run` raises it.
    """
    shard = next(stage.shard for stage in stages if stage.shard)
    output_dir = {stage.name: stage.output_dir for stage in stages}
    place, host = place_of_part(output, number), read_host()
    with tempfile.TemporaryDirectory(prefix="job-", dir=roomy_folder()) as scratch:
        main = open_read_only(output, manifest, Path(scratch))
        inputs, digests = what_it_needs(shard, number, manifest, main, output_dir)
        folder = open_output(place, manifest, lambda text: ui.message(STORAGE, text, "warning"))
        folder.check_ours([shard.output_dir])
        planner = _planner(manifest, (shard,), folder, None, host)
        with StopSignals(limit_seconds(manifest)) as stop, folder.locked() as lock:
            folder.recover([(shard.name, shard.output_dir)])
            try:
                folder.keep_manifest(manifest.resolved)
                task = _task_maker(manifest, folder, host, lock)
                course = StageRunner(planner, ui, stop, task, place)
                course.outputs, course.digests = inputs, digests
                course.pass_stage(shard)
                folder.sync(stop, manifest.run.grace_seconds)
            except JobError:
                keep_unfinished(folder, stop, manifest, ui)
                raise
            finally:
                folder.save_digests()
    return RunResult(place, tuple(course.rows), None)


def limit_seconds(manifest: Manifest) -> float | None:
    """Return how long the job may take in all."""
    return None if manifest.run.max_minutes is None else manifest.run.max_minutes * 60


def keep_unfinished(folder: LocalOutput, stop: StopSignals, manifest: Manifest, ui: Ui) -> None:
    """Keep what a run that ends before its time has done; why it ends is told by another."""
    try:
        folder.sync(stop, manifest.run.grace_seconds)
    except JobError as error:
        ui.message(STORAGE, f"unfinished work is on this machine only: {error}", "warning")


def chosen_stages(
    stages: Sequence[Stage], from_stage: str | None, until_stage: str | None
) -> tuple[Stage, ...]:
    """Return the stages to pass; the first that is forced must be among them."""
    selected = select(stages, until_stage)
    forced = depending(stages, from_stage)
    ends_early = from_stage == REPORT and len(selected) < len(stages)
    if ends_early or (forced and forced.isdisjoint(stage.name for stage in selected)):
        raise UsageError(
            f"--until {until_stage} ends before --from {from_stage} begins",
            "Name a later stage with --until, or leave it out.",
        )
    return selected


def _planner(
    manifest: Manifest,
    stages: Sequence[Stage],
    folder: LocalOutput,
    from_stage: str | None,
    host: Host,
) -> Planner:
    return Planner(
        manifest=manifest,
        output=folder,
        versions=library_versions(),
        host=host,
        forced=depending(stages, from_stage),
        from_stage=from_stage,
    )


TaskMaker = Callable[[Stage, Mapping[str, StageOutput], Path, Rendezvous | None], StageTask]


def _task_maker(manifest: Manifest, folder: LocalOutput, host: Host, lock: int) -> TaskMaker:
    """Return what makes a stage's task, once its inputs and its folder are known."""

    def make(
        stage: Stage, inputs: Mapping[str, StageOutput], out: Path, meeting: Rendezvous | None
    ) -> StageTask:
        threads = host.usable_cores
        shared = environment(meeting.threads(threads)) | meeting.variables() if meeting else None
        return StageTask(
            stage=stage,
            manifest=manifest.resolved,
            base=manifest.base,
            inputs=inputs,
            out=out,
            root=folder.root,
            log=folder.logs / f"{stage.name}.log",
            environment=shared or environment(threads),
            inherit=(lock,),
            origin=as_json(manifest),
            grace_seconds=manifest.run.grace_seconds * folder.saving_share,
        )

    return make


class StageRunner:
    """One run on its way through the stages."""

    def __init__(
        self,
        planner: Planner,
        ui: Ui,
        stop: StopSignals,
        task: TaskMaker,
        output: Location,
        leader: Coordinator | None = None,
    ) -> None:
        self.planner = planner
        self.output = output
        self.leader = leader
        self.folder = planner.output
        self.ui = ui
        self.stop = stop
        self.task = task
        self.rows: list[StageRow] = []
        self.outputs: dict[str, StageOutput] = {}
        self.digests: dict[str, str] = {}

    def pass_stage(self, stage: Stage) -> None:
        """Reuse what a stage left or run it."""
        self.stop.check()
        verdict = self.planner.judge(stage, self.digests)
        left = verdict.reusable
        if left is None:
            left = self._run(stage, verdict)
        else:
            self.ui.stage_reused(stage.name, verdict.reason)
        status = "ran" if verdict.reusable is None else "reused"
        self.rows.append(StageRow(stage.name, status, left.seconds, left.key))
        self.outputs[stage.name] = StageOutput(path=left.path, record=left.record)
        self.digests[stage.name] = digest_of(left)

    def report(self, reporting: ReportConfig, *, again: bool) -> Mapping[str, Any]:
        """Write report.json and its renderings, unless they are current."""
        self.stop.check()
        stages = {row.name: (row.key, self.digests[row.name]) for row in self.rows}

        def make() -> Mapping[str, Any]:
            rows = [asdict(row) for row in self.rows]
            made = reporting.build(self.planner.manifest, self.outputs, rows, reporting.notes)
            return {**made, "comparable": reporting.comparable}

        return write_or_reuse(
            self.folder.root,
            _report_key(self.planner.manifest, stages, reporting),
            make,
            self.ui,
            reason=_REPORT_CHANGED,
            # The report shows which stages ran.
            again=again or any(row.status == "ran" for row in self.rows),
            render=reporting.render,
        )

    def _run(self, stage: Stage, verdict: Verdict) -> Published:
        """Run a stage in its process and publish what it leaves."""
        if verdict.found is None:
            raise AssertionError(f"{stage.name} stands before a stage that it needs")
        key = key_of(verdict.found)
        out, resumed = self.folder.partial(stage.name, key)
        inputs = {name: self.outputs[name] for name in stage.needs}
        # What a shard reads is of another output, and at hand.
        ours = [each.path for each in inputs.values() if each.path.parent == self.folder.root]
        self.folder.download(path.name for path in ours)
        inputs |= self._parts(stage)
        meeting = self.leader.call() if self.leader and stage.follower_stage else None
        task = self.task(stage, inputs, out, meeting)
        if resumed:
            self.ui.stage_started(stage.name, f"{verdict.reason}; goes on from unfinished work")
        else:
            task.log.unlink(missing_ok=True)
            self.ui.stage_started(stage.name, verdict.reason)
        started = time.monotonic()
        record = self._work(task)
        seconds = time.monotonic() - started
        left = self.folder.publish(
            stage.name, stage.output_dir, ingredients=verdict.found, seconds=seconds, record=record
        )
        self.folder.sync(self.stop, self.planner.manifest.run.grace_seconds)
        self.ui.stage_finished(stage.name, seconds)
        return left

    def _work(self, task: StageTask) -> Record:
        """Run a stage's process, as long as all that train with this one are there."""
        try:
            return run_stage(
                task, self.stop, lambda event: self._tell(task.stage.name, event), self._watch
            )
        except PeerLost:
            if self.leader:
                self.leader.ask_why()
            raise

    def _watch(self) -> None:
        # Once asked to stop, a stage has all it needs to save its state.
        if self.leader and not self.stop.received:
            self.leader.attend()

    def _parts(self, stage: Stage) -> dict[str, StageOutput]:
        """Return what other machines have done of a stage's work."""
        count = self.planner.manifest.accuracy.shards
        if stage.shard is None or count == 1:
            return {}
        scratch = self.folder.root / ".shards"
        found = finished_parts(stage.shard, self.output, scratch, self.planner, self.digests)
        self.ui.message(stage.name, f"{len(found)} of {count} parts were scored elsewhere")
        return found

    def _tell(self, stage: str, event: Mapping[str, Any]) -> None:
        """Show an event of a stage's process, which ends with this run's right to write."""
        self.folder.check()
        if event["event"] == "message":
            self.ui.message(stage, event["text"], event["level"])
        else:
            self.ui.progress(
                stage, event["what"], event["done"], event["total"], event["unit"], event["note"]
            )
