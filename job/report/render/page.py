"""A report as it is set, whatever it is a report of."""

from collections.abc import Callable
from dataclasses import dataclass

from job.report.render.blocks import Section


@dataclass(frozen=True)
class Card:
    """One figure of the glance; ``good`` is None where there is nothing to judge."""

    title: str
    value: str
    detail: str
    good: bool | None = None


@dataclass(frozen=True)
class Summary:
    """What a reader sees first.

    Attributes:
        passed: whether no gate failed.
        headline: one sentence with speed, accuracy and size.
        notices: what must be known before the figures are trusted.
        cards: verdict, speed, top-1, size.
    """

    passed: bool
    headline: str
    notices: tuple[str, ...]
    cards: tuple[Card, ...]


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
