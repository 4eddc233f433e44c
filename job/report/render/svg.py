"""Matplotlib figures as inline SVG: same bytes each time, text as text, colours from the page."""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_INCHES = 9.5

# Matplotlib needs real colours. These stand for the page's CSS variables and are replaced by them,
# so that one picture serves the light and the dark page.
INK = "#010101"
FAINT = "#020202"
FP32 = "#030303"
QAT_FAKE = "#040404"
INT8 = "#050505"
LINE = "#060606"
PART_1, PART_2, PART_3 = "#070707", "#080808", "#090909"
PART_4, PART_5, PART_6 = "#0a0a0a", "#0b0b0b", "#0c0c0c"
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    FP32: "var(--fp32)",
    QAT_FAKE: "var(--qat-fake)",
    INT8: "var(--int8)",
    LINE: "var(--line)",
    PART_1: "var(--part-1)",
    PART_2: "var(--part-2)",
    PART_3: "var(--part-3)",
    PART_4: "var(--part-4)",
    PART_5: "var(--part-5)",
    PART_6: "var(--part-6)",
}
MODEL_COLOURS = {"fp32": FP32, "qat_fake": QAT_FAKE, "int8": INT8}

# Matplotlib types its settings by a list of literal names that a dict literal does not match.
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.formatter.use_mathtext": False,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


def new_figure(height_inches: float) -> Figure:
    """An empty figure as wide as the page, laid out so that nothing overlaps."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def quiet(axes: Axes, grid: str) -> None:
    """A faint grid behind the data; ``grid`` is ``x``, ``y`` or ``both``."""
    axes.set_axisbelow(True)
    if grid in ("x", "both"):
        axes.xaxis.grid(True)
    if grid in ("y", "both"):
        axes.yaxis.grid(True)


def inline(figure: Figure, name: str, label: str) -> str:
    """The figure as an ``<svg>`` element for an HTML page.

    Args:
        figure: drawn under ``matplotlib.rc_context(RC)``, with this module's colours.
        name: prefix of its ids, unique on the page; letters only.
        label: what the picture shows, for those who cannot see it; plain ASCII text.
    """
    buffer = io.StringIO()
    with mpl.rc_context(RC):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # It would apply to the whole page, which has the same rule for pictures alone.
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    # Matplotlib names the same things the same way in every picture.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: var(--font)")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*pt"', "", head)
    return f'{head} role="img" aria-label="{label}">{rest}'.rstrip()
