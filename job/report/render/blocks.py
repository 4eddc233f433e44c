"""What a report is made of, whatever it is rendered to. All text is plain and unescaped."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column's heading, perhaps of several lines; numbers are set to the right."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Grid:
    """A table whose cells are ready to be read; ``note`` stands below it."""

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
    """Preformatted text under a heading, such as the manifest."""

    title: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A place for a picture, by the name of what it shows, such as ``throughput``."""

    name: str


Block = Grid | Text | Code | Plot


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: tuple[Block, ...]


def words(*titles: str) -> tuple[Column, ...]:
    """Columns of text."""
    return tuple(Column(title) for title in titles)


def figures(*titles: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(title, numeric=True) for title in titles)
