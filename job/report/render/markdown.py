"""A report as GitHub Flavored Markdown."""

import re

from job.report.render.blocks import Block, Code, Grid, Plot, Text
from job.report.render.page import Page

# Links and images, emphasis, code, tables, formulas. An underscore inside a word has no meaning in
# Markdown; escaping it would make names hard to read in the source.
SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def render(page: Page) -> str:
    """Return the report as Markdown, without plots."""
    lines = [f"# {escape(page.name)}", "", f"**{escape(page.summary.headline)}**", ""]
    lines += [f"> **{escape(notice)}**\n" for notice in page.summary.notices]
    lines += [f"> {escape(note)}\n" for note in page.summary.notes]
    lines += [f"{escape(page.about)}. Created {escape(page.created_at)}.", ""]
    for section in page.sections:
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            lines += _block(block, section.title)
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Return plain text as one line, with the special characters of Markdown and HTML escaped."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # GitHub turns URLs into links unless they are broken up.
    return SPECIAL.sub(r"\\\1", flat).replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def _block(block: Block, section: str) -> list[str]:
    match block:
        case Text(text):
            return [escape(text), ""]
        case Grid():
            return _grid(block, section)
        case Code(title, text):
            longest = max((len(run) for run in re.findall("`+", text)), default=0)
            fence = "`" * max(3, longest + 1)
            return [f"{escape(title)}:", "", f"{fence}{block.language}", text, fence, ""]
        case Plot():
            return []


def _grid(grid: Grid, section: str) -> list[str]:
    lines = [] if grid.title == section else [f"### {escape(grid.title)}", ""]
    lines.append(_row([column.title for column in grid.columns]))
    lines.append("|" + "|".join(" ---: " if c.numeric else " --- " for c in grid.columns) + "|")
    lines += [_row(row) for row in grid.rows]
    if grid.note:
        lines += ["", escape(grid.note)]
    return [*lines, ""]


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"
