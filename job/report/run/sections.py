"""The report's parts, in order, for Markdown and HTML alike."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from job.report.render.blocks import Block, Code, Plot, Section, Text
from job.report.render.page import Page
from job.report.run import plots, provenance, results, speed
from job.report.run.breakdown import breakdown_sections
from job.report.run.summary import summarize


def sections(report: Mapping[str, Any]) -> tuple[Section, ...]:
    """Everything below the headline, from a valid report."""
    return (
        Section("Gates", _gates(report)),
        Section("Accuracy", _accuracy(report)),
        Section(
            "Speed",
            (
                *speed.throughput_grids(report),
                Plot("throughput"),
                *speed.int8_engines_grids(report),
                *speed.latency_grids(report),
                Plot("latency"),
                speed.fp32_grid(report),
            ),
        ),
        *breakdown_sections(report),
        Section("Size", (results.sizes_grid(report), Plot("sizes"))),
        Section("Training", _training(report)),
        Section("What ran in INT8", provenance.audit_blocks(report)),
        Section("Data", provenance.data_blocks(report)),
        Section("Machine and versions", provenance.machine_blocks(report)),
        Section("Stages", (provenance.stages_grid(report),)),
        Section("Digests", provenance.digest_grids(report)),
        Section("Manifest", (manifest_code(report),)),
    )


def _gates(report: Mapping[str, Any]) -> tuple[Block, ...]:
    if not report["gates"]:
        return (Text("The manifest set no gates."),)
    return (results.gates_grid(report),)


def _accuracy(report: Mapping[str, Any]) -> tuple[Block, ...]:
    if report["accuracy"] is None:
        return (Text("Not measured: the images are synthetic."),)
    paired = Text(results.paired_text(report))
    return (results.accuracy_grid(report), paired, Plot("accuracy"))


def _training(report: Mapping[str, Any]) -> tuple[Block, ...]:
    training = report["training"]
    blocks: list[Block] = []
    if training["baseline"] is None:
        model = report["manifest"]["model"]
        given = any(model.get(key) for key in ("weights", "pretrained", "inference_model"))
        weights = "were given" if given else "are random"
        blocks.append(Text(f"The baseline was not trained in this run: its weights {weights}."))
    if training["qat"] is None:
        blocks.append(Text("Post-training quantization: there was no quantization-aware training."))
    if training["baseline"] is not None or training["qat"] is not None:
        blocks += [results.training_grid(report), Plot("training")]
    return tuple(blocks)


def manifest_code(report: Mapping[str, Any]) -> Code:
    """The manifest that the report was made from."""
    text = json.dumps(report["manifest"], indent=2, ensure_ascii=False)
    return Code("As resolved: defaults and overrides filled in", text)


def page_of(report: Mapping[str, Any]) -> Page:
    """Set a valid report."""
    return Page(
        name=report["name"],
        created_at=report["created_at"],
        summary=summarize(report),
        sections=sections(report),
        draw=partial(plots.draw, report=report),
    )
