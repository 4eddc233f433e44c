"""Matplotlib figures as reproducible inline SVG with real text and the colours of the page."""

import io
import re
import warnings
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_INCHES = 9.5

# Matplotlib needs real colours. Each of these is a placeholder for a CSS variable of the page, so
# that one plot fits the light and the dark page.
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

# Matplotlib declares the names of its settings as literals, which a plain dict does not match.
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
    """Return an empty figure of the width of the page; its layout prevents overlaps."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def quiet(axes: Axes, grid: str) -> None:
    """Draw a faint grid behind the data; ``grid`` is ``x``, ``y`` or ``both``."""
    axes.set_axisbelow(True)
    if grid in ("x", "both"):
        axes.xaxis.grid(True)
    if grid in ("y", "both"):
        axes.yaxis.grid(True)


def inline(figure: Figure, name: str, label: str) -> str:
    """Return the figure as an ``<svg>`` element for an HTML page.

    Args:
        figure: drawn inside ``matplotlib.rc_context(RC)`` with the colours of this module.
        name: prefix of the element's ids, unique on the page; letters only.
        label: description for screen readers; plain ASCII text without quotes.
    """
    buffer = io.StringIO()
    with mpl.rc_context(RC), warnings.catch_warnings():
        # The page shows texts in the reader's fonts, so Matplotlib's font need not have each sign.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # This style would apply to the whole page. The page has the same rule for plots only.
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    # Matplotlib uses the same ids in every plot, but ids must be unique on the page.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-")
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: var(--font)")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*pt"', "", head)
    return f'{head} role="img" aria-label="{label}">{rest}'.rstrip()
