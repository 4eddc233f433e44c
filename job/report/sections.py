"""The sections of a report in order, the same for Markdown and HTML."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from job.report import plots
from job.report.cells import gates_grid
from job.report.matrix import results as matrix
from job.report.render.blocks import Block, Code, Grid, Plot, Section, Text
from job.report.render.page import Page
from job.report.run import provenance, quality, results, speed
from job.report.run.breakdown import breakdown_sections
from job.report.run.classes import classes_grid
from job.report.run.scenarios import scenarios_grid
from job.report.run.use_it import about, use_sections
from job.report.summary import summarize
from job.report.tables import is_matrix
from job.report.views import view_of

# The page that stage accuracy writes for detectors.
_DETECTIONS = "accuracy/detections.html"
_DETECTIONS_TEXT = (
    f"{_DETECTIONS} shows test images with the boxes of FP32 and INT8 side by side. Images on "
    "which the models differ most come first."
)


def page_of(report: Mapping[str, Any]) -> Page:
    """Return the page of a valid report, of a run or of a matrix."""
    parts = _matrix_sections(report) if is_matrix(report) else _run_sections(report)
    return Page(
        title=f"{report['name']}: FP32 to INT8",
        name=report["name"],
        created_at=report["created_at"],
        about=about(report),
        summary=summarize(report),
        sections=without_empty((*parts, Section("Manifest", (_manifest_code(report),)))),
        draw=partial(plots.draw, report=report),
    )


def without_empty(sections: Sequence[Section]) -> tuple[Section, ...]:
    """Return sections without tables that have no rows, and without sections that have no blocks.

    The note of such a table stays as text.
    """
    filled = (replace(each, blocks=tuple(_without_empty(each.blocks))) for each in sections)
    return tuple(section for section in filled if section.blocks)


def _without_empty(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        if not isinstance(block, Grid) or block.rows:
            yield block
        elif block.note:
            yield Text(block.note)


def _run_sections(report: Mapping[str, Any]) -> tuple[Section, ...]:
    return (
        *use_sections(report),
        _gates(report),
        Section("Accuracy", _accuracy(report)),
        Section(
            "Speed",
            (
                *speed.throughput_grids(report),
                Plot("throughput"),
                scenarios_grid(report),
                *speed.int8_engines_grids(report),
                *speed.latency_grids(report),
                Plot("latency"),
                speed.fp32_grid(report),
            ),
        ),
        *breakdown_sections(report),
        Section("Size", (results.sizes_grid(report), Plot("sizes"))),
        Section("Training", _training(report)),
        Section("Ops in INT8", provenance.audit_blocks(report)),
        Section("Data", provenance.data_blocks(report)),
        _machine(report, provenance.isa_and_seeds(report)),
        Section("Stages", (provenance.stages_grid(report),)),
        Section("Checksums", provenance.checksum_grids(report), folded=True),
    )


def _matrix_sections(report: Mapping[str, Any]) -> tuple[Section, ...]:
    failures, accuracy = matrix.failures_grid(report), matrix.accuracy_grid(report)
    return (
        *((Section("Models without a result", (failures,)),) if failures.rows else ()),
        Section("Accuracy", (accuracy if accuracy.rows else Text(accuracy.note),)),
        Section("Speed", _matrix_speed(report)),
        Section("Models", (matrix.models_grid(report),)),
        _gates(report),
        _machine(report),
    )


def _gates(report: Mapping[str, Any]) -> Section:
    grid = gates_grid(report)
    return Section("Gates", (grid if grid.rows else Text("The manifest sets no gates."),))


def _machine(report: Mapping[str, Any], more: provenance.Facts = ()) -> Section:
    grids = (provenance.host_grid(report, more), provenance.versions_grid(report))
    return Section("Machine and versions", grids)


def _manifest_code(report: Mapping[str, Any]) -> Code:
    text = json.dumps(report["manifest"], indent=2, ensure_ascii=False)
    return Code("Resolved manifest, with defaults and overrides applied", text)


def _has_artifact(report: Mapping[str, Any], path: str) -> bool:
    return any(artifact["path"] == path for artifact in report["artifacts"])


def _accuracy(report: Mapping[str, Any]) -> tuple[Block, ...]:
    if report["accuracy"] is None:
        return (Text("Not measured, because the images are synthetic."),)
    table, compared = quality.accuracy_grid(report), quality.paired_text(report)
    close, by_class = quality.closeness_grid(report), classes_grid(report)
    drawn = {"accuracy", *(("curves",) if report["accuracy"].get("curves") else ())}
    return (
        *((table,) if table else ()),
        *((Text(compared),) if compared else ()),
        *((close,) if close else ()),
        *((by_class,) if by_class else ()),
        *(Plot(name) for name in view_of(report).plots if name in drawn),
        *((Text(_DETECTIONS_TEXT),) if _has_artifact(report, _DETECTIONS) else ()),
    )


def _training(report: Mapping[str, Any]) -> tuple[Block, ...]:
    training = report["training"]
    blocks: list[Block] = []
    if training["baseline"] is None:
        model = report["manifest"]["model"]
        given = any(model.get(key) for key in ("weights", "pretrained", "inference_model"))
        weights = "are from the manifest" if given else "are random"
        blocks.append(Text(f"The baseline was not trained in this run. Its weights {weights}."))
    if training["qat"] is None:
        blocks.append(
            Text("Post-training quantization (PTQ), without quantization-aware training (QAT).")
        )
    calibration = results.calibration_grid(report)
    if calibration is not None:
        blocks.append(calibration)
    if training["baseline"] is not None or training["qat"] is not None:
        blocks.append(results.training_grid(report))
        candidates = results.candidates_text(report)
        blocks += [*([Text(candidates)] if candidates else []), Plot("training")]
    return tuple(blocks)


def _matrix_speed(report: Mapping[str, Any]) -> tuple[Block, ...]:
    grid = matrix.speed_grid(report)
    if not grid.rows:
        return (Text("Not measured."),)
    below = matrix.below_published_grid(report)
    reasons = (below,) if below.rows else ()
    return (grid, Plot("ratios"), *matrix.engines_grids(report), *reasons)
