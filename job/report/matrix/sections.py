"""The matrix report's parts, in order, for Markdown and HTML alike."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from job.report.matrix import plots, results
from job.report.matrix.summary import summarize
from job.report.render.blocks import Block, Plot, Section, Text
from job.report.render.page import Page
from job.report.run import provenance
from job.report.run.sections import manifest_code


def sections(report: Mapping[str, Any]) -> tuple[Section, ...]:
    """Everything below the headline, from a valid matrix report."""
    failures = results.failures_grid(report)
    return (
        *((Section("Without a result", (failures,)),) if failures.rows else ()),
        Section("Accuracy", _accuracy(report)),
        Section("Speed", _speed(report)),
        Section("Models", (results.models_grid(report),)),
        Section("Gates", _gates(report)),
        Section("Machine and versions", _machine(report)),
        Section("Manifest", (manifest_code(report),)),
    )


def _accuracy(report: Mapping[str, Any]) -> tuple[Block, ...]:
    grid = results.accuracy_grid(report)
    return (grid,) if grid.rows else (Text(grid.note),)


def _speed(report: Mapping[str, Any]) -> tuple[Block, ...]:
    grid = results.speed_grid(report)
    if not grid.rows:
        return (Text("Not measured."),)
    obstacles = results.obstacles_grid(report)
    below = (obstacles,) if obstacles.rows else ()
    return (grid, Plot("ratios"), *results.engines_grids(report), *below)


def _gates(report: Mapping[str, Any]) -> tuple[Block, ...]:
    grid = results.gates_grid(report)
    return (grid,) if grid.rows else (Text("The manifest set no gates."),)


def _machine(report: Mapping[str, Any]) -> tuple[Block, ...]:
    return (provenance.host_grid(report), provenance.versions_grid(report))


def page_of(report: Mapping[str, Any]) -> Page:
    """Set a valid matrix report."""
    return Page(
        name=report["name"],
        created_at=report["created_at"],
        summary=summarize(report),
        sections=sections(report),
        draw=partial(plots.draw, report=report),
    )
