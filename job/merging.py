"""A matrix over many machines: each runs one model, and whoever asks joins what they left.

Nothing but the output is shared, a folder or a place in S3:

    <output>/<model>/report.json     its report, as of any run
    <output>/<model>/.failure.json   why its last try ended without one
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from job import matrix, pipeline
from job.errors import JobError, Unfinished, UsageError
from job.manifest import Manifest
from job.matrix import MatrixResult, ModelResult, StagesFor
from job.outputs import Place, left_at, open_output
from job.pipeline import STORAGE, Reporting, RunResult, limit_seconds
from job.progress import Ui
from job.signals import StopSignals
from job.storage.local import LocalOutput


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
    output: Place,
    ui: Ui,
    reporting: Reporting,
    from_stage: str | None = None,
    until_stage: str | None = None,
) -> RunResult:
    """Run one model of a matrix, as :func:`job.matrix.run` would, beside runs of the others.

    Args:
        manifest: a valid manifest.
        index: the model's place in the matrix, from 0.
        stages_for: returns the stages of one model.
        output: the output folder of the whole matrix.
        ui: is told of everything.
        reporting: how the model's report is made.
        from_stage: as for :func:`job.pipeline.run`.
        until_stage: the same.

    Raises:
        UsageError: there is no such model.
        JobError: as :func:`job.pipeline.run` raises it.
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


def merge(manifest: Manifest, *, output: Place, ui: Ui) -> MatrixResult:
    """Write the matrix report of what is there; run it again whenever more is.

    Args:
        manifest: the manifest that the models were run with.
        output: the output folder of the whole matrix.
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
    folder = open_output(output, manifest, lambda text: ui.message(STORAGE, text, "warning"))
    folder.check_ours([])
    with StopSignals(limit_seconds(manifest)) as stop, folder.locked(stages=False):
        found = tuple(_found(name, single, output / name, folder) for name, single in models)
        made = matrix.build(manifest, found, _machine_notes(found), **_measured_on(found))
        told = matrix.write_report(made, folder, ui)
        folder.keep(stop, manifest.run.grace_seconds)
    return MatrixResult(output, found, told)


def _found(name: str, single: Manifest, place: Place, beside: LocalOutput) -> ModelResult:
    """Return how a model fared, as far as its output tells."""
    left = left_at(place, beside)
    report, failure = left.report, left.failure
    if isinstance(report, dict) and report.get("manifest") == single.resolved:
        return ModelResult(name, RunResult(place, (), report))
    if isinstance(failure, dict) and failure.get("manifest") == single.resolved:
        error = JobError(failure["message"])
        error.exit_code = failure["exit_code"]
        return ModelResult(name, None, error)
    if report or failure:
        why = "what it left is of other settings than this manifest's"
    elif left.begun:
        why = "its run goes on, or was killed before its end"
    else:
        why = "its run has not begun"
    return ModelResult(name, None, Unfinished(f"no result yet: {why}"))


def _measured_on(found: Sequence[ModelResult]) -> Mapping[str, Any]:
    """Return host and versions of the first model that has a report: not of who joins them."""
    reports = [model.run.report for model in found if model.run and model.run.report]
    return {name: reports[0][name] for name in ("host", "versions")} if reports else {}


def _machine_notes(found: Sequence[ModelResult]) -> list[str]:
    """Tell when the models were measured on machines of several kinds."""
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
    return [f"Measured on different machines, so that only ratios compare: {listed}."]
