"""The plot of a matrix. The schema limits the names of its models to plain characters."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from job.report.render import svg
from job.report.tables import Setting, SpeedRow, setting_name, settings, speed_rows

COLOURS = (svg.FP32, svg.INT8, svg.QAT_FAKE, svg.FAINT)
MARKERS = ("o", "s", "D", "^", "v", "P")
# Height of a model's band that its points are spread over.
SPREAD = 0.64


def ratios(report: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw INT8 over FP32 of each model at each setting, with the published speedups."""
    rows = speed_rows(report)
    models = list(dict.fromkeys(row.model for row in rows))
    measured = settings(report)
    with mpl.rc_context(svg.RC):
        figure = svg.new_figure(0.9 + len(models) * max(0.34, 0.13 * len(measured)))
        axes = figure.subplots()
        for number, setting in enumerate(measured):
            shift = SPREAD * ((number + 0.5) / len(measured) - 0.5)
            places = [(models.index(r.model) + shift, r) for r in rows if r.setting == setting]
            for stable in (True, False):
                some = [(place, row) for place, row in places if row.stable is stable]
                label = setting_name(report, setting) if some == places or stable else ""
                _points(axes, some, label, *_look(setting, measured), hollow=not stable)
        _published(axes, models, rows)
        axes.set_yticks(range(len(models)), models)
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("Speedup (INT8 images/s over FP32 images/s)")
        axes.tick_params(axis="y", length=0)
        svg.quiet(axes, "x")
        figure.legend(loc="outside upper left", ncols=2)
    return figure, (
        "Speedup of INT8 over FP32. Whiskers: 95% intervals. Vertical lines: published speedups. "
        "Hollow markers: unstable measurements."
    )


def _look(setting: Setting, measured: tuple[Setting, ...]) -> tuple[str, str]:
    """Return colour and marker: the colour for the ISA cap, the marker for the other settings."""
    caps = list(dict.fromkeys(other.isa_cap for other in measured))
    shapes = list(dict.fromkeys(replace(other, isa_cap="") for other in measured))
    shape = shapes.index(replace(setting, isa_cap=""))
    return COLOURS[caps.index(setting.isa_cap) % len(COLOURS)], MARKERS[shape % len(MARKERS)]


def _points(
    axes: Axes,
    places: list[tuple[float, SpeedRow]],
    label: str,
    colour: str,
    marker: str,
    *,
    hollow: bool,
) -> None:
    bounds = [row.ratio_interval or (row.ratio, row.ratio) for _, row in places]
    ratios = [row.ratio for _, row in places]
    axes.errorbar(
        ratios,
        [place for place, _ in places],
        xerr=[
            [max(0.0, ratio - low) for ratio, (low, _) in zip(ratios, bounds, strict=True)],
            [max(0.0, high - ratio) for ratio, (_, high) in zip(ratios, bounds, strict=True)],
        ],
        linestyle="none",
        markersize=5,
        elinewidth=1.1,
        capsize=2.5,
        label=label,
        color=colour,
        marker=marker,
        markerfacecolor="white" if hollow else colour,
    )


def _published(axes: Axes, models: list[str], rows: tuple[SpeedRow, ...]) -> None:
    known = {row.model: row.published_ratio for row in rows if row.published_ratio is not None}
    if known:
        places = [models.index(model) for model in known]
        low, high = [p - 0.42 for p in places], [p + 0.42 for p in places]
        axes.vlines(list(known.values()), low, high, color=svg.INK, linewidth=1.6,
                    label="published")  # fmt: skip
