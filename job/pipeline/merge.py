"""A matrix over many machines: each runs one model, and whoever asks joins what they left.

Nothing but the output is shared; each model's has its ``report.json``, or its ``failure.json``.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.errors import JobError, NoRun, Unfinished, UsageError
from job.manifest import Manifest
from job.pipeline import matrix
from job.pipeline import run as pipeline
from job.pipeline.matrix import MatrixResult, ModelResult, StagesFor
from job.pipeline.output_location import Location, open_output, store_of
from job.pipeline.run import STORAGE, ReportConfig, RunResult
from job.process.signals import StopSignals
from job.storage.files import read_json
from job.storage.local import FAILURE
from job.storage.s3.fetch_run import REPORT_FILE, read_records
from job.ui.protocol import Ui


def model_at(manifest: Manifest, index: int) -> tuple[str, Manifest]:
    """Return name and manifest of one model of a matrix.

    Raises:
        UsageError: there is no such model.
    """
    models = matrix.singles(manifest)
    if not 0 <= index < len(models):
        has = f"its matrix has 0 to {len(models) - 1}" if models else "it has no matrix"
        raise UsageError(
            f"--index {index}: the manifest has no such model, {has}",
            "Leave it out, or correct it.",
        )
    return models[index]


def run_index(
    manifest: Manifest,
    index: int,
    *,
    stages_for: StagesFor,
    output: Location,
    ui: Ui,
    reporting: ReportConfig,
    from_stage: str | None = None,
    until_stage: str | None = None,
) -> RunResult:
    """Run one model of a matrix; other processes may run the other models at the same time.

    Args:
        manifest: a valid manifest.
        index: the model's place in the matrix, from 0.
        stages_for: returns the stages of one model.
        output: that of the whole matrix, a folder or in S3.
        ui: is told of everything.
        reporting: how the model's report is made.
        from_stage: as for :func:`job.pipeline.run.run`.
        until_stage: the same.

    Raises:
        UsageError: there is no such model.
        JobError: as :func:`job.pipeline.run.run` raises it.
    """
    name, single = model_at(manifest, index)
    ui.model_started(name, index + 1, len(manifest.matrix or ()))
    return pipeline.run(
        single,
        stages=stages_for(single),
        output=output / name,
        ui=ui,
        reporting=reporting,
        from_stage=from_stage,
        until_stage=until_stage,
    )


def merge(manifest: Manifest, *, output: Location, ui: Ui) -> MatrixResult:
    """Write the matrix report of what is there; run it again whenever more is.

    Args:
        manifest: the manifest that the models were run with.
        output: that of the whole matrix, a folder or in S3.
        ui: is told of everything.

    Raises:
        UsageError: the manifest has no matrix.
        OutputError: the report cannot be written, or is being written by another run.
    """
    models = matrix.singles(manifest)
    if not models:
        raise UsageError(
            "the manifest has no matrix, so that there is nothing to join",
            "`job report DIR` shows a single run.",
        )
    found = tuple(_found(name, single, output / name) for name, single in models)
    folder = open_output(output, manifest, lambda text: ui.message(STORAGE, text, "warning"))
    folder.check_ours([])
    with StopSignals() as stop, folder.locked(stages=False):
        folder.keep_manifest(manifest.resolved)
        made = matrix.build(manifest, found, _machine_notes(found), **_measured_on(found))
        told = matrix.write_report(made, folder, ui)
        folder.sync(stop, manifest.run.grace_seconds)
    return MatrixResult(output, found, told)


def _found(name: str, single: Manifest, place: Location) -> ModelResult:
    """Return how a model fared, as far as its output tells."""
    records = _records(single, place)
    report, failure = ((records or {}).get(name) for name in (REPORT_FILE, FAILURE))
    if _is_of(report, single):
        return ModelResult(name, RunResult(place, (), report))
    if failure is not None and _is_of(failure, single):
        error = JobError(failure["message"])
        error.exit_code = failure["exit_code"]
        return ModelResult(name, None, error)
    if report or failure:
        why = "what it left is of other settings than this manifest's"
    elif records is None:
        why = "its run has not begun"
    else:
        why = "its run goes on, or was killed before its end"
    return ModelResult(name, None, Unfinished(f"no result yet: {why}"))


def _records(single: Manifest, place: Location) -> Mapping[str, Any] | None:
    """Return the documents that tell how a run ended, None where none has begun."""
    if isinstance(place, Path):
        read = {name: read_json(place / name) for name in (REPORT_FILE, FAILURE)}
        return read if place.is_dir() else None
    try:
        return read_records(store_of(single.storage, single.base), place, (REPORT_FILE, FAILURE))
    except NoRun:
        return None


def _is_of(document: Any, single: Manifest) -> bool:
    """Tell whether a report, or the note of a failure, is of just this manifest."""
    return isinstance(document, dict) and document.get("manifest") == single.resolved


def _measured_on(found: Sequence[ModelResult]) -> Mapping[str, Any]:
    """Return host and versions of the first model that has a report, not of this machine."""
    reports = [model.run.report for model in found if model.run and model.run.report]
    return {name: reports[0][name] for name in ("host", "versions")} if reports else {}


def _machine_notes(found: Sequence[ModelResult]) -> list[str]:
    """Return a note if the models were measured on different kinds of machines."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for model in found:
        if model.run and model.run.report:
            host = model.run.report["host"]
            cores = host["quota_cores"] or host["cores"]
            kind = f"{host['cpu_model']}, {cores:g} cores, {host['allocator']}"
            kinds[kind].append(model.name)
    if len(kinds) < 2:
        return []
    listed = "; ".join(f"{', '.join(names)} on {kind}" for kind, names in kinds.items())
    return [f"Measured on different machines: {listed}. Compare only speedups, not images/s."]
