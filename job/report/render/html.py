"""A report as one HTML file without network access or scripts; plots are inline."""

from html import escape

from job.report.render.blocks import BAD_VERDICTS, Block, Code, Column, Grid, Plot, Section, Text
from job.report.render.page import Card, Page
from job.report.render.style import CSS

# Second line of defence: the page may load and run nothing, even if escaping failed.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# The cells of this column are long words without spaces, set in a monospace font.
DIGEST_COLUMN = "SHA-256"
# Names up to this length, in characters, are not broken.
LONGEST_NAME = 24
# Tables with more columns are set in a smaller font, so that they fit the page.
MOST_COLUMNS = 9


def render(page: Page) -> str:
    """Return the report as HTML; equal reports give equal bytes."""
    summary, name = page.summary, escape(page.name)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(page.title)}</title>",
            f"<style>\n{CSS}\n</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{name}</h1>",
            f'<p class="made">{escape(page.about)}<br>Created {escape(page.created_at)}</p>',
            '<div class="cards">',
            *(_card(card) for card in summary.cards),
            "</div>",
            f'<p class="headline">{escape(summary.headline)}</p>',
            *(f'<p class="notice">{escape(notice)}</p>' for notice in summary.notices),
            *(f'<p class="info">{escape(note)}</p>' for note in summary.notes),
            _contents(page),
            *(_section(number, section, page) for number, section in enumerate(page.sections)),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _contents(page: Page) -> str:
    links = (
        f'<a href="#part-{number}">{escape(section.title)}</a>'
        for number, section in enumerate(page.sections)
    )
    return f'<nav aria-label="Contents">{" ".join(links)}</nav>'


def _section(number: int, section: Section, page: Page) -> str:
    title = f'<h2 id="part-{number}">{escape(section.title)}</h2>'
    blocks = "\n".join(_block(block, section.title, page) for block in section.blocks)
    if section.folded:
        blocks = f"<details>\n<summary>Show</summary>\n{blocks}\n</details>"
    return f"<section>\n{title}\n{blocks}\n</section>"


def _card(card: Card) -> str:
    judged = "" if card.good is None else " good" if card.good else " bad"
    judged = " warn" if card.warning else judged
    return (
        f'<div class="card{judged}"><span>{escape(card.title)}</span>'
        f"<b>{escape(card.value)}</b><span>{escape(card.detail)}</span></div>"
    )


def _block(block: Block, section: str, page: Page) -> str:
    match block:
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Grid():
            return _grid(block, section)
        case Code(title, text, folded=True):
            shown = f"<summary>{escape(title)}</summary>\n<pre>{escape(text)}</pre>"
            return f"<details>\n{shown}\n</details>"
        case Code(title, text):
            return f"<p>{escape(title)}:</p>\n<pre>{escape(text)}</pre>"
        case Plot(name):
            picture, caption = page.draw(name)
            caption = f"<figcaption>{escape(caption)}</figcaption>"
            return f"<figure>\n{picture}\n{caption}\n</figure>"


def _grid(grid: Grid, section: str) -> str:
    lines = [] if grid.title == section else [f"<h3>{escape(grid.title)}</h3>"]
    dense = ' class="dense"' if len(grid.columns) > MOST_COLUMNS else ""
    lines += ['<div class="scroll">', f"<table{dense}>", "<thead><tr>"]
    lines += [
        f'<th scope="col" class="{"n" if column.numeric else "w"}">{_heading(column)}</th>'
        for column in grid.columns
    ]
    lines += ["</tr></thead>", "<tbody>"]
    lines += [
        "<tr>"
        + "".join(_cell(cell, column) for cell, column in zip(row, grid.columns, strict=True))
        + "</tr>"
        for row in grid.rows
    ]
    lines += ["</tbody>", "</table>", "</div>"]
    if grid.note:
        lines.append(f'<p class="note">{escape(grid.note)}</p>')
    return "\n".join(lines)


def _heading(column: Column) -> str:
    return escape(column.title).replace("\n", "<br>")


def _cell(cell: str, column: Column) -> str:
    if column.numeric:
        name = "n"
    elif column.title == DIGEST_COLUMN:
        name = "digest"
    elif column.title == "Verdict" and cell in BAD_VERDICTS:
        name = "failed"
    elif len(cell) <= LONGEST_NAME and " " not in cell:
        name = "name"
    else:
        return f"<td>{escape(cell)}</td>"
    return f'<td class="{name}">{escape(cell)}</td>'
