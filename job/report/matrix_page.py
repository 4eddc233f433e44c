"""The report of a matrix as a page."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from job.report import matrix_plots
from job.report.matrix_sections import sections
from job.report.matrix_summary import summarize
from job.report.page import Page


def page_of(report: Mapping[str, Any]) -> Page:
    """Set a valid matrix report."""
    return Page(
        name=report["name"],
        created_at=report["created_at"],
        summary=summarize(report),
        sections=sections(report),
        draw=partial(matrix_plots.draw, report=report),
    )
