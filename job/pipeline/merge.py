"""A matrix on several machines: each machine runs one model, then the results are combined.

The machines share only the output. Each model's output has a ``report.json`` or ``failure.json``.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.errors import JobError, NoRun, Unfinished, UsageError
from job.manifest import Manifest
from job.pipeline import matrix
from job.pipeline import run as pipeline
from job.pipeline.matrix import MatrixResult, ModelResult
from job.pipeline.output_location import STORAGE, Location, open_output, store_of
from job.pipeline.request import RunRequest
from job.pipeline.run import RunResult
from job.process.signals import StopSignals
from job.storage.files import read_json
from job.storage.local import FAILURE
from job.storage.s3.fetch_run import REPORT_FILE, read_records
from job.ui.protocol import StageEvents, Ui


def model_at(manifest: Manifest, index: int) -> tuple[str, Manifest]:
    """Return name and manifest of the model at a position in the matrix, from 0.

    Raises:
        UsageError: the model does not exist.
    """
    models = matrix.singles(manifest)
    if not 0 <= index < len(models):
        expected = f"expected 0 to {len(models) - 1}" if models else "the manifest has no matrix"
        hint = "Omit --index, or correct the number." if models else "Omit --index."
        raise UsageError(f"--index {index}: {expected}", hint)
    return models[index]


def run_index(manifest: Manifest, index: int, request: RunRequest, ui: Ui) -> RunResult:
    """Run one model of a matrix. Other processes may run the other models at the same time.

    Args:
        manifest: a valid manifest.
        index: position of the model in the matrix, from 0.
        request: ``output`` is the output of the whole matrix.
        ui: shows progress.

    Raises:
        UsageError: the model does not exist.
        JobError: as for :func:`job.pipeline.run.run`.
    """
    name, single = model_at(manifest, index)
    ui.model_started(name, index + 1, len(manifest.matrix or ()))
    return pipeline.run(single, request.for_model(name), ui)


def merge(manifest: Manifest, *, output: Location, ui: Ui) -> MatrixResult:
    """Write the matrix report from the results that exist so far.

    Args:
        manifest: the manifest with which the models were run.
        output: the output of the whole matrix.
        ui: shows progress.

    Raises:
        UsageError: the manifest has no matrix.
        OutputError: the report cannot be written, or another process has locked the output.
    """
    models = matrix.singles(manifest)
    if not models:
        raise UsageError(
            "the manifest has no matrix, so there are no results to combine",
            "Use `job report DIR` to show the report of a single run.",
        )
    results = tuple(_result_of(name, single, output / name) for name, single in models)
    folder = open_output(output, manifest, StageEvents(ui, STORAGE).warn)
    folder.check_ours([])
    with StopSignals() as stop, folder.locked(stages=False):
        folder.keep_manifest(manifest.resolved)
        made = matrix.build(manifest, results, _machine_notes(results), **_measured_on(results))
        report = matrix.write_report(made, folder, ui)
        folder.sync(stop, manifest.run.grace_seconds)
    return MatrixResult(output, results, report)


def _result_of(name: str, single: Manifest, place: Location) -> ModelResult:
    """Return the result of one model, read from its output."""
    records = _records(single, place)
    report, failure = ((records or {}).get(name) for name in (REPORT_FILE, FAILURE))
    if _is_of(report, single):
        return ModelResult(name, RunResult(place, (), report))
    if failure is not None and _is_of(failure, single):
        error = JobError(failure["message"])
        error.exit_code = failure["exit_code"]
        return ModelResult(name, None, error)
    if report or failure:
        reason = "its result was computed with other settings than in this manifest"
    elif records is None:
        reason = "its run has not started"
    else:
        reason = "its run has not finished, or was killed"
    return ModelResult(name, None, Unfinished(f"no result yet: {reason}"))


def _records(single: Manifest, place: Location) -> Mapping[str, Any] | None:
    """Return report.json and failure.json of a run by name; None if no run has started."""
    if isinstance(place, Path):
        records = {name: read_json(place / name) for name in (REPORT_FILE, FAILURE)}
        return records if place.is_dir() else None
    try:
        return read_records(store_of(single.storage, single.base), place, (REPORT_FILE, FAILURE))
    except NoRun:
        return None


def _is_of(document: Any, single: Manifest) -> bool:
    """Return whether report.json or failure.json was written for exactly this manifest."""
    return isinstance(document, dict) and document.get("manifest") == single.resolved


def _measured_on(found: Sequence[ModelResult]) -> Mapping[str, Any]:
    """Return host and versions of the machine that measured the first model that has a report."""
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
