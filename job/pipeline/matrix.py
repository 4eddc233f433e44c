"""Runs each model of a matrix, one after the other, and reports on all of them side by side.

    <output>/<model>/     an ordinary run with its own stages and report
    <output>/report.json  the matrix report, with report.md and report.html

A model that fails is told of in the matrix report and does not keep the others from running.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from job.errors import DONE, GOES_ON, GateFailed, JobError, MatrixFailed, Unfinished
from job.host import read_host
from job.manifest import Manifest, entries
from job.manifest.spec import PublishedSpec
from job.pipeline import run as pipeline
from job.pipeline.fingerprint import library_versions
from job.pipeline.output_location import Location, open_output
from job.pipeline.plan import REPORT, PlannedStage
from job.pipeline.report_files import report_key, write_or_reuse
from job.pipeline.run import STORAGE, ReportConfig, RunResult, limit_seconds
from job.process.signals import StopSignals
from job.report.render.schema_check import WORST_FIRST
from job.stages.stage import Stage
from job.storage.local import LocalOutput
from job.ui.protocol import Ui

# Keys that the matrix report copies from each model's own report.
COPIED = ("accuracy", "benchmark", "audit", "breakdown", "gates", "models")
StagesFor = Callable[[Manifest], Sequence[Stage]]


@dataclass(frozen=True)
class ModelResult:
    """How one model fared: what its run came to, or the error that ended it."""

    name: str
    run: RunResult | None
    error: JobError | None = None

    @property
    def status(self) -> str:
        """``passed``, ``gate_failed``, ``failed``, ``unfinished`` (elsewhere, no result yet), or

        ``incomplete`` when it was ended before its report, as asked.
        """
        if self.run is None:
            return "unfinished" if isinstance(self.error, Unfinished) else "failed"
        return str(self.run.report["status"]) if self.run.report else "incomplete"

    @property
    def exit_code(self) -> int:
        """As if this model had been run alone."""
        if self.error is not None:
            return self.error.exit_code
        return GateFailed.exit_code if self.status == "gate_failed" else DONE


@dataclass(frozen=True)
class MatrixResult:
    """What a matrix came to.

    Attributes:
        output: where it was written.
        models: one for each entry, in order.
        report: report.json's content; None when ``until_stage`` ended the runs before it.
    """

    output: Location
    models: tuple[ModelResult, ...]
    report: Mapping[str, Any] | None

    @property
    def worked(self) -> bool:
        """True unless everything was reused."""
        return any(model.run is None or model.run.worked for model in self.models)

    @property
    def failure(self) -> MatrixFailed | None:
        """The error for models that failed or missed a gate, None when there are none."""
        failed = [model for model in self.models if model.exit_code != DONE]
        if not failed:
            return None
        listed = "".join(f"\n  {model.name}: {_why(model)}" for model in failed)
        if all(model.status == "unfinished" for model in failed):
            return MatrixFailed(
                failed[0].exit_code,
                f"{len(failed)} of {len(self.models)} models have no result yet:{listed}",
                "The report shows the others; the same command joins these once they are done.",
            )
        again = any(model.status == "failed" for model in failed)
        return MatrixFailed(
            next(model.exit_code for model in failed if model.status != "unfinished"),
            f"{len(failed)} of {len(self.models)} models failed:{listed}",
            "What is done stays; the same command goes on with the others."
            if again
            else "The reports show by how much the gates failed and what stayed in FP32.",
        )


def _why(model: ModelResult) -> str:
    return str(model.error) if model.error else "a gate failed, see its report"


def plan(
    manifest: Manifest,
    *,
    stages_for: StagesFor,
    output: Location,
    reporting: ReportConfig,
    from_stage: str | None = None,
    until_stage: str | None = None,
) -> tuple[tuple[str, tuple[PlannedStage, ...]], ...]:
    """Tell what a run of each model would do, by name; nothing is written.

    The arguments are those of :func:`run`.

    Raises:
        UsageError: a model has no such stage.
    """
    return tuple(
        (
            name,
            pipeline.plan(
                single,
                stages=stages_for(single),
                output=output / name,
                reporting=reporting,
                from_stage=from_stage,
                until_stage=until_stage,
            ),
        )
        for name, single in singles(manifest)
    )


def flat(planned: Sequence[tuple[str, Sequence[PlannedStage]]]) -> tuple[PlannedStage, ...]:
    """Return the stages of all models, named ``model/stage``."""
    return tuple(
        replace(stage, name=f"{name}/{stage.name}") for name, stages in planned for stage in stages
    )


def run(
    manifest: Manifest,
    *,
    stages_for: StagesFor,
    output: Location,
    ui: Ui,
    reporting: ReportConfig,
    from_stage: str | None = None,
    until_stage: str | None = None,
) -> MatrixResult:
    """Run each model in a folder of its own; one that fails does not keep the others from running.

    Args:
        manifest: a valid manifest with a matrix.
        stages_for: returns the stages of one model.
        output: where it is written; a folder is created when missing.
        ui: is told of everything.
        reporting: how each model's own report is made.
        from_stage: as for :func:`job.pipeline.run.run`, for each model.
        until_stage: the same.

    Raises:
        UsageError: a model has no such stage.
        OutputError: the output cannot be written, or another run writes there.
        Stopped: a signal came.
    """
    models_to_run = singles(manifest)
    for _, single in models_to_run:
        pipeline.chosen_stages(stages_for(single), from_stage, until_stage)
    folder = open_output(output, manifest, lambda text: ui.message(STORAGE, text, "warning"))
    folder.check_ours([])
    with StopSignals(limit_seconds(manifest)) as stop, folder.locked(stages=False):
        folder.keep_manifest(manifest.resolved)
        try:
            models = []
            for number, (name, single) in enumerate(models_to_run, 1):
                ui.model_started(name, number, len(models_to_run))
                go = partial(
                    pipeline.run,
                    single,
                    stages=stages_for(single),
                    output=output / name,
                    ui=ui,
                    reporting=reporting,
                    from_stage=from_stage,
                    until_stage=until_stage,
                )
                models.append(_run_one(name, go, folder, ui))
                folder.sync(stop, manifest.run.grace_seconds)
            told = None
            if all(model.status != "incomplete" for model in models):
                made = build(manifest, models, reporting.notes)
                told = write_report(made, folder, ui, again=from_stage == REPORT)
                folder.sync(stop, manifest.run.grace_seconds)
        except JobError:
            pipeline.keep_unfinished(folder, stop, manifest, ui)
            raise
    return MatrixResult(output, tuple(models), told)


def singles(manifest: Manifest) -> tuple[tuple[str, Manifest], ...]:
    """Return name and manifest of each model; none without a matrix."""
    names = [entry.name for entry in manifest.matrix or ()]
    return tuple(zip(names, entries(manifest), strict=True))


def _run_one(name: str, go: Callable[[], RunResult], folder: LocalOutput, ui: Ui) -> ModelResult:
    """Run one model; the matrix report goes as soon as it may be untrue."""
    try:
        result = go()
    except GOES_ON:  # these would meet every other model as well
        folder.retract()
        raise
    except JobError as error:
        folder.retract()
        ui.message(name, f"failed: {error}", "warning")
        return ModelResult(name, None, error)
    if result.worked:
        folder.retract()
    return ModelResult(name, result)


def write_report(
    made: Mapping[str, Any], folder: LocalOutput, ui: Ui, *, again: bool = False
) -> Mapping[str, Any]:
    """Write a matrix report, unless the same report is there; return the report that is there.

    Args:
        made: the report from :func:`build`.
        folder: the output of the whole matrix, locked.
        ui: receives the start and the end of the stage ``report``.
        again: write the report even if the same report is there.
    """
    # The key covers the whole report except the time at which it was made.
    key = report_key(**{**made, "created_at": None})
    reason = "compares all models"
    return write_or_reuse(folder.root, key, lambda: made, ui, reason=reason, again=again)


def build(
    manifest: Manifest,
    models: Sequence[ModelResult],
    notes: Sequence[str],
    *,
    host: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the matrix report, which matches ``schemas/matrix_report.schema.json``.

    Args:
        manifest: the manifest of the matrix.
        models: the result of each model; models that did not fail have a report.
        notes: notes on the run, such as a waived requirement.
        host: the machine on which the models were measured; None means this machine.
        versions: versions of the libraries on that machine; None means this machine.
    """
    statuses = {model.status for model in models}
    worst = next(status for status in WORST_FIRST if status in statuses)
    return {
        "version": 1,
        "name": manifest.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": worst,
        "manifest": dict(manifest.resolved),
        "host": host or read_host().as_report(),
        "versions": dict(versions or library_versions()),
        "notes": list(dict.fromkeys([*notes, *_notes(models)])),
        "matrix": [
            _entry(model, entry.published)
            for model, entry in zip(models, manifest.matrix or (), strict=True)
        ],
    }


def _notes(models: Sequence[ModelResult]) -> list[str]:
    """Return each note of the models' reports once; if not all models have it, with their names."""
    models_of: dict[str, list[str]] = {}
    done = [(model.name, model.run.report) for model in models if model.run and model.run.report]
    for name, report in done:
        for note in report["notes"]:
            models_of.setdefault(note, []).append(name)
    return [
        note if len(names) == len(done) else f"{', '.join(names)}: {note}"
        for note, names in models_of.items()
    ]


def _entry(model: ModelResult, published: PublishedSpec | None) -> dict[str, Any]:
    """Return one model of the report; a model without a report has null for its measurements."""
    error, run = model.error, model.run
    report = run.report if run and run.report else {}
    return {
        "model": model.name,
        "status": model.status,
        "error": {"message": str(error), "exit_code": error.exit_code} if error else None,
        "report": f"{model.name}/report.json" if report else None,
        "published": asdict(published) if published else None,
        **{name: report.get(name) for name in COPIED},
    }
