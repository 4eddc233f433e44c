"""The report of a matrix as a page."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from job.report.matrix import plots
from job.report.matrix.sections import sections
from job.report.matrix.summary import summarize
from job.report.render.page import Page


def page_of(report: Mapping[str, Any]) -> Page:
    """Set a valid matrix report."""
    return Page(
        name=report["name"],
        created_at=report["created_at"],
        summary=summarize(report),
        sections=sections(report),
        draw=partial(plots.draw, report=report),
    )
