"""The page of a report: what Markdown and HTML render."""

from collections.abc import Callable
from dataclasses import dataclass

from job.report.render.blocks import Section


@dataclass(frozen=True)
class Card:
    """One figure of the summary.

    Attributes:
        title: what the figure is.
        value: the figure.
        detail: more about it, in one or more lines.
        good: True or False for a verdict; None if the figure is no verdict.
        warning: the figure needs attention, although no gate failed.
    """

    title: str
    value: str
    detail: str
    good: bool | None = None
    warning: bool = False


@dataclass(frozen=True)
class Summary:
    """The summary at the top of a report.

    Attributes:
        passed: True if all gates passed.
        headline: one sentence with result, speed, accuracy and size.
        notices: warnings about the use of the figures.
        notes: information on how the figures were made.
        cards: four figures. The first shows the result of the gates.
    """

    passed: bool
    headline: str
    notices: tuple[str, ...]
    notes: tuple[str, ...]
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Page:
    """Everything that Markdown and HTML show.

    Attributes:
        title: the title of the browser's window.
        name: the heading.
        created_at: time at which the report was created, ISO 8601.
        about: the model, the data and the machine in one line.
        summary: headline, notices and cards.
        sections: everything below the summary.
        draw: returns the ``<svg>`` element and the plain-text caption of a plot, by its name.
    """

    title: str
    name: str
    created_at: str
    about: str
    summary: Summary
    sections: tuple[Section, ...]
    draw: Callable[[str], tuple[str, str]]
