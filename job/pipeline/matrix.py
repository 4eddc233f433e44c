"""Runs the models of a matrix, one after the other, and writes one report of all models.

    <output>/<model>/     the run of one model, with its own stages and report
    <output>/report.json  the matrix report, with report.md and report.html

A model that fails does not stop the others; the matrix report shows its error.
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
from job.pipeline.output_location import STORAGE, Location, open_output
from job.pipeline.plan import REPORT, PlannedStage
from job.pipeline.report_files import report_key, write_or_reuse
from job.pipeline.request import RunRequest
from job.pipeline.run import RunResult, limit_seconds
from job.process.signals import StopSignals
from job.report.render.schema_check import WORST_FIRST
from job.storage.local import LocalOutput
from job.ui.protocol import StageEvents, Ui

# Keys that the matrix report copies from each model's own report.
COPIED = ("accuracy", "benchmark", "audit", "breakdown", "gates", "models")


@dataclass(frozen=True)
class ModelResult:
    """The result of one model: its run, or the error that ended the run."""

    name: str
    run: RunResult | None
    error: JobError | None = None

    @property
    def status(self) -> str:
        """``passed``, ``gate_failed``, ``failed``, ``unfinished`` or ``incomplete``.

        ``unfinished``: the model runs on another machine and has no result yet.
        ``incomplete``: ``until_stage`` ended the run before its report.
        """
        if self.run is None:
            return "unfinished" if isinstance(self.error, Unfinished) else "failed"
        return str(self.run.report["status"]) if self.run.report else "incomplete"

    @property
    def exit_code(self) -> int:
        """The exit code of a run of this model alone."""
        if self.error is not None:
            return self.error.exit_code
        return GateFailed.exit_code if self.status == "gate_failed" else DONE


@dataclass(frozen=True)
class MatrixResult:
    """The result of a matrix run.

    Attributes:
        output: the folder or S3 prefix that contains the results.
        models: one result for each model of the matrix, in order.
        report: content of report.json; None if ``until_stage`` ended the runs before the report.
    """

    output: Location
    models: tuple[ModelResult, ...]
    report: Mapping[str, Any] | None

    @property
    def worked(self) -> bool:
        """Whether any model ran; False if every result was reused."""
        return any(model.run is None or model.run.worked for model in self.models)

    @property
    def failure(self) -> MatrixFailed | None:
        """The error that names the models that failed or have no result; None if all passed."""
        failed = [model for model in self.models if model.exit_code != DONE]
        if not failed:
            return None
        lines = "".join(f"\n  {model.name}: {_why(model)}" for model in failed)
        if all(model.status == "unfinished" for model in failed):
            return MatrixFailed(
                failed[0].exit_code,
                f"{len(failed)} of {len(self.models)} models have no result yet:{lines}",
                "The report shows the other models. Run the same command again when these models "
                "have finished.",
            )
        again = any(model.status == "failed" for model in failed)
        return MatrixFailed(
            next(model.exit_code for model in failed if model.status != "unfinished"),
            f"{len(failed)} of {len(self.models)} models failed:{lines}",
            "Run the same command again; it reuses the finished results and runs only the rest."
            if again
            else "The reports show by how much the gates failed and which ops stayed in FP32.",
        )


def _why(model: ModelResult) -> str:
    return str(model.error) if model.error else "a gate failed; see its report"


def plan(
    manifest: Manifest, request: RunRequest
) -> tuple[tuple[str, tuple[PlannedStage, ...]], ...]:
    """Return the name of each model and what its run would do. Nothing is written.

    Raises:
        UsageError: a stage that the request names does not exist.
    """
    return tuple(
        (name, pipeline.plan(single, request.for_model(name))) for name, single in singles(manifest)
    )


def flat(planned: Sequence[tuple[str, Sequence[PlannedStage]]]) -> tuple[PlannedStage, ...]:
    """Return the stages of all models, named ``model/stage``."""
    return tuple(
        replace(stage, name=f"{name}/{stage.name}") for name, stages in planned for stage in stages
    )


def run(manifest: Manifest, request: RunRequest, ui: Ui) -> MatrixResult:
    """Run each model in its own folder. A model that fails does not stop the others.

    Args:
        manifest: a valid manifest with a matrix.
        request: ``output`` is the output of the whole matrix; the other fields apply to each model.
        ui: shows progress.

    Raises:
        UsageError: a stage that the request names does not exist.
        OutputError: the output cannot be written, or another run has locked it.
        Stopped: a signal stopped the run.
    """
    models_to_run = singles(manifest)
    for _, single in models_to_run:
        pipeline.chosen_stages(request.stages_for(single), request)
    folder = open_output(request.output, manifest, StageEvents(ui, STORAGE).warn)
    folder.check_ours([])
    with StopSignals(limit_seconds(manifest)) as stop, folder.locked(stages=False):
        folder.keep_manifest(manifest.resolved)
        try:
            models = []
            for number, (name, single) in enumerate(models_to_run, 1):
                ui.model_started(name, number, len(models_to_run))
                run_model = partial(pipeline.run, single, request.for_model(name), ui)
                models.append(_run_one(name, run_model, folder, ui))
                folder.sync(stop, manifest.run.grace_seconds)
            report = None
            if all(model.status != "incomplete" for model in models):
                notes = request.report.notes if request.report else ()
                made = build(manifest, models, notes)
                report = write_report(made, folder, ui, again=request.from_stage == REPORT)
                folder.sync(stop, manifest.run.grace_seconds)
        except JobError:
            pipeline.keep_unfinished(folder, stop, manifest, ui)
            raise
    return MatrixResult(request.output, tuple(models), report)


def singles(manifest: Manifest) -> tuple[tuple[str, Manifest], ...]:
    """Return name and manifest of each model; an empty tuple without a matrix."""
    names = [entry.name for entry in manifest.matrix or ()]
    return tuple(zip(names, entries(manifest), strict=True))


def _run_one(
    name: str, run_model: Callable[[], RunResult], folder: LocalOutput, ui: Ui
) -> ModelResult:
    """Run one model. The matrix report is removed as soon as it may be out of date."""
    try:
        result = run_model()
    except GOES_ON:  # The same error would stop every other model, too.
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
    """Write a matrix report, unless the folder already contains the same report. Return it.

    Args:
        made: the report from :func:`build`.
        folder: the output of the whole matrix, locked.
        ui: receives the start and the end of the stage ``report``.
        again: write the report even if the folder contains the same report.
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
        notes: notes on the run, such as a CPU without AVX512_VNNI.
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
    """Return each note of the models' reports once. Name the models if not all have the note."""
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
