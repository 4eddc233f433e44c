"""The plot of the time of one call by kind of primitive: a stacked bar for each model."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from job import text_format
from job.report.render import svg
from job.report.tables import NO_CAP

# Kinds of a report and the group in which each is drawn; all other kinds are drawn as OTHER.
GROUPS = {
    "convolution": "convolution",
    "depthwise convolution": "depthwise convolution",
    "matrix product": "matrix product",
    "pooling": "pooling",
    "reduction": "pooling",
    "reorder": "reorder",
}
OTHER, OUTSIDE = "other primitive", "outside primitives"
COLOURS = {
    "convolution": svg.PART_1,
    "depthwise convolution": svg.PART_2,
    "matrix product": svg.PART_3,
    "pooling": svg.PART_4,
    OTHER: svg.PART_5,
    "reorder": svg.PART_6,
    OUTSIDE: svg.FAINT,
}


def breakdown(report: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw milliseconds and percent of a call by kind of primitive."""
    bars = [
        (_label(part, model), groups_of(part, model))
        for part in report["breakdown"]
        for model in ("fp32", "int8")
    ]
    seen = [group for group in COLOURS if any(groups.get(group) for _, groups in bars)]
    with mpl.rc_context(svg.RC):
        figure = svg.new_figure(0.95 + 0.33 * len(bars))
        times, shares = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
        names = [name for name, _ in bars]
        milliseconds = np.array([[groups.get(g, 0.0) for g in seen] for _, groups in bars])
        totals = milliseconds.sum(axis=1, keepdims=True)
        _stack(times, names, seen, milliseconds)
        for name, total in zip(names, totals[:, 0], strict=True):
            times.annotate(text_format.significant(float(total)), (float(total), name),
                           xytext=(5, 0), textcoords="offset points", va="center")  # fmt: skip
        times.set_xlim(0, 1.16 * float(totals.max()))
        times.set_title("Time of one call in ms")
        _stack(shares, names, seen, 100 * milliseconds / totals)
        shares.set_xlim(0, 100)
        shares.set_title("Share of the call in percent")
        times.invert_yaxis()  # Both panels share this axis; FP32 comes first.
        handles, labels = times.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(seen))
    return figure, "Time of one call by kind of primitive. FP32 and INT8 both run in oneDNN."


def groups_of(part: Mapping[str, Any], model: str) -> dict[str, float]:
    """Return the milliseconds of a model, ``fp32`` or ``int8``, by drawn group."""
    groups = {OUTSIDE: float(part["dispatch_ms"][model])}
    for row in part[model]["kinds"]:
        group = GROUPS.get(row["kind"].partition(":")[0], OTHER)
        groups[group] = groups.get(group, 0.0) + row["milliseconds"]
    return groups


def _label(part: Mapping[str, Any], model: str) -> str:
    cap = "" if part["isa_cap"] == NO_CAP else f"\n{part['isa_cap']}"
    return f"{model.upper()}{cap}"


def _stack(axes: Axes, names: list[str], groups: list[str], lengths: np.ndarray) -> None:
    start = np.zeros(len(names))
    for column, group in enumerate(groups):
        values = lengths[:, column]
        axes.barh(names, values, left=start, height=0.66, color=COLOURS[group], label=group)
        start = start + values
    axes.tick_params(axis="y", length=0)
    svg.quiet(axes, "x")
