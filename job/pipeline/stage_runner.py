"""Runs stages one after the other, or reuses their earlier results, and writes the report."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from job.distributed.control import Coordinator
from job.distributed.group import Rendezvous
from job.errors import PeerLost
from job.pipeline.fetch_inputs import as_json
from job.pipeline.fingerprint import key_of
from job.pipeline.output_location import Location
from job.pipeline.plan import REPORT, RESUMES, Planner, Verdict, digest_of
from job.pipeline.report_files import write_or_reuse
from job.pipeline.request import ReportConfig
from job.pipeline.run_report import CHANGED, key_of_report
from job.pipeline.shards import finished_parts
from job.pipeline.stage_process import StageTask, run_stage
from job.process.environment import environment
from job.process.signals import StopSignals
from job.stages.stage import Record, Stage, StageOutput
from job.storage.local import Published
from job.ui.protocol import StageEvents, Ui


@dataclass(frozen=True)
class StageRow:
    """One row of ``stages`` in report.json; ``status`` is ``ran`` or ``reused``."""

    name: str
    status: str
    seconds: float
    key: str


class StageRunner:
    """Runs or reuses the stages of one run.

    Args:
        planner: decides which stages run.
        ui: shows progress.
        stop: collects stop signals.
        lock: file descriptor of the output's lock. The processes of stages inherit the
            descriptor, so the output stays locked until they have ended.
        output: the output of the run, with the parts that other machines have scored.
        coordinator: the connections to the other ranks, if several processes train together.

    Attributes:
        rows: one row for each stage so far.
        outputs: outputs of the stages so far, by stage name.
        digests: digests of these outputs.
    """

    def __init__(
        self,
        planner: Planner,
        ui: Ui,
        stop: StopSignals,
        lock: int,
        output: Location,
        coordinator: Coordinator | None = None,
    ) -> None:
        self.planner = planner
        self.manifest = planner.manifest
        self.folder = planner.output
        self.ui = ui
        self.stop = stop
        self.lock = lock
        self.output = output
        self.coordinator = coordinator
        self.rows: list[StageRow] = []
        self.outputs: dict[str, StageOutput] = {}
        self.digests: dict[str, str] = {}

    def run_or_reuse(self, stage: Stage) -> None:
        """Reuse the earlier result of a stage, or run the stage.

        Raises:
            JobError: the stage raised it, or a signal stopped the run.
        """
        self.stop.check()
        verdict = self.planner.judge(stage, self.digests)
        result = verdict.reusable
        if result is None:
            result = self._run(stage, verdict)
        else:
            self.folder.drop_unfinished(stage.name)
            self.ui.stage_reused(stage.name, verdict.reason)
        status = "ran" if verdict.reusable is None else "reused"
        self.rows.append(StageRow(stage.name, status, result.seconds, result.key))
        self.outputs[stage.name] = StageOutput(path=result.path, record=result.record)
        self.digests[stage.name] = digest_of(result)

    def check_early(self, stage: Stage) -> None:
        """Run a stage's early check in its own process, if it has one for this manifest.

        Raises:
            JobError: the check found a mistake, or a signal stopped the run.
        """
        check = stage.early_check(self.manifest)
        if check is None:
            return
        self.stop.check()
        self.ui.message(stage.name, "checking its inputs before the first stage runs")
        with tempfile.TemporaryDirectory(prefix="job-") as scratch:
            task = self._task(
                replace(stage, run=check, needs=(), shard=None, follower_stage=None), Path(scratch)
            )
            task.log.unlink(missing_ok=True)
            self._run_process(task)

    def report(self, config: ReportConfig, *, forced: bool) -> Mapping[str, Any]:
        """Return the report. Write report.json, .md and .html unless they are up to date.

        Args:
            config: how the report is built.
            forced: write the report even if it is current.
        """
        self.stop.check()
        made_of = {row.name: (row.key, self.digests[row.name]) for row in self.rows}

        def make() -> Mapping[str, Any]:
            rows = [asdict(row) for row in self.rows]
            built = config.build(self.manifest, self.outputs, rows, config.notes)
            return {**built, "comparable": config.comparable}

        return write_or_reuse(
            self.folder.root,
            key_of_report(self.manifest, made_of, config),
            make,
            self.ui,
            reason=f"--from {REPORT}" if forced else CHANGED,
            # The report shows which stages ran.
            again=forced or any(row.status == "ran" for row in self.rows),
            render=config.render,
        )

    def _run(self, stage: Stage, verdict: Verdict) -> Published:
        """Run a stage in its own process and publish its output."""
        if verdict.ingredients is None:
            raise AssertionError(f"{stage.name} comes before a stage that it needs")
        key = key_of(verdict.ingredients)
        out, resumed = self.folder.partial(stage.name, key)
        task = self._task(stage, out)
        if not resumed:
            task.log.unlink(missing_ok=True)
        self.ui.stage_started(stage.name, f"{verdict.reason}{RESUMES if resumed else ''}")
        started = time.monotonic()
        record = self._run_process(task)
        seconds = time.monotonic() - started
        published = self.folder.publish(
            stage.name,
            stage.output_dir,
            ingredients=verdict.ingredients,
            seconds=seconds,
            record=record,
        )
        self.folder.sync(self.stop, self.manifest.run.grace_seconds)
        self.ui.stage_finished(stage.name, seconds)
        return published

    def _task(self, stage: Stage, out: Path) -> StageTask:
        """Return what the stage's process needs; download its inputs if they are in S3."""
        inputs = {name: self.outputs[name] for name in stage.needs}
        # The inputs of a part are in the output of the whole run. They are already local.
        ours = [each.path for each in inputs.values() if each.path.parent == self.folder.root]
        self.folder.download(path.name for path in ours)
        shared = self.coordinator if stage.follower_stage else None
        rendezvous = shared.call() if shared else None
        return StageTask(
            stage=stage,
            manifest=self.manifest.resolved,
            base=self.manifest.base,
            inputs=inputs | self._finished_parts(stage),
            out=out,
            root=self.folder.root,
            log=self.folder.logs / f"{stage.name}.log",
            environment=self._environment(rendezvous),
            inherit=(self.lock,),
            origin=as_json(self.manifest),
            grace_seconds=self.manifest.run.grace_seconds * self.folder.saving_share,
        )

    def _environment(self, rendezvous: Rendezvous | None) -> dict[str, str]:
        cores = self.planner.host.usable_cores
        if rendezvous is None:
            return environment(cores)
        return environment(rendezvous.threads(cores)) | rendezvous.variables()

    def _run_process(self, task: StageTask) -> Record:
        """Run a stage's process; end it when the output's lock or another rank is lost."""
        events = StageEvents(self.ui, task.stage.name)

        def show(event: Mapping[str, Any]) -> None:
            self.folder.check()
            events.show(event)

        try:
            return run_stage(task, self.stop, show, self._watch)
        except PeerLost:
            if self.coordinator:
                self.coordinator.wait_for_reason()
            raise

    def _watch(self) -> None:
        # After a stop signal, a stage can save its state without the other ranks.
        if self.coordinator and not self.stop.received:
            self.coordinator.poll()

    def _finished_parts(self, stage: Stage) -> dict[str, StageOutput]:
        """Return the parts of a stage's work that other machines have finished."""
        count = self.manifest.accuracy.shards
        if stage.shard is None or count == 1:
            return {}
        scratch = self.folder.root / ".shards"
        parts = finished_parts(stage.shard, self.output, scratch, self.planner, self.digests)
        self.ui.message(stage.name, f"reusing {len(parts)} of {count} parts from other machines")
        return parts
