"""Building blocks of a report, for all output formats. All text is plain and unescaped."""

from dataclasses import dataclass

# Cells of the column "Verdict" that are shown in red.
BAD_VERDICTS = ("FAILED", "WORSE")


@dataclass(frozen=True)
class Column:
    """A column's heading, which may have several lines; numeric columns are aligned right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Grid:
    """A table of formatted cells; ``note`` is printed below it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Preformatted text with a title, such as the manifest.

    Attributes:
        title: what the text is.
        text: the text.
        language: its language, for Markdown.
        folded: whether the page shows the text only after a click.
    """

    title: str
    text: str
    language: str = "json"
    folded: bool = True


@dataclass(frozen=True)
class Plot:
    """A plot by its name, such as ``throughput``."""

    name: str


Block = Grid | Text | Code | Plot


@dataclass(frozen=True)
class Section:
    """A titled part of the report; ``folded`` if the page shows it only after a click."""

    title: str
    blocks: tuple[Block, ...]
    folded: bool = False


def words(*titles: str) -> tuple[Column, ...]:
    """Return columns of text."""
    return tuple(Column(title) for title in titles)


def figures(*titles: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(title, numeric=True) for title in titles)
