"""The report of one run as a page."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from job.report.render.page import Page
from job.report.run import plots
from job.report.run.sections import sections
from job.report.run.summary import summarize


def page_of(report: Mapping[str, Any]) -> Page:
    """Set a valid report."""
    return Page(
        name=report["name"],
        created_at=report["created_at"],
        summary=summarize(report),
        sections=sections(report),
        draw=partial(plots.draw, report=report),
    )
