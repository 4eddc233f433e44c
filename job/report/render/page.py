"""A report as it is set, whatever it is a report of."""

from collections.abc import Callable
from dataclasses import dataclass

from job.report.render.blocks import Section
from job.report.run.summary import Summary


@dataclass(frozen=True)
class Page:
    """All that Markdown and HTML show.

    Attributes:
        name: the title.
        created_at: when the report was made, ISO 8601.
        summary: what a reader sees first.
        sections: everything below it.
        draw: from a picture's name to its ``<svg>`` element and its caption, plain text.
    """

    name: str
    created_at: str
    summary: Summary
    sections: tuple[Section, ...]
    draw: Callable[[str], tuple[str, str]]
