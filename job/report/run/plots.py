"""The plots of a run. No user text is drawn in a plot."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from job import text_format
from job.report.accuracy_rows import accuracy_rows
from job.report.render import svg
from job.report.tables import (
    SpeedRow,
    cap_name,
    caps,
    load_name,
    model_name,
    setting_name,
    speed_rows,
)
from job.report.views import MODELS, view_of
from job.stats import Interval

MAX_POINTS = 400
# Of FP32, INT8, and INT8 in other engines.
BAR_COLOURS = (svg.FP32, svg.INT8, svg.QAT_FAKE, svg.FAINT)


def accuracy(report: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw the measures of the three models with 95% intervals on a zoomed axis."""
    rows, view = [row for row in accuracy_rows(report) if row.model in MODELS], view_of(report)
    names = [model_name(report, row.model) for row in rows]
    colours = [svg.MODEL_COLOURS[row.model] for row in rows]
    panels: list[tuple[str, list[float], list[Interval]]] = []
    for place, measure in enumerate(view.shown(report)):
        values = [row.scores[place].value or 0.0 for row in rows]
        known = [row.scores[place].interval for row in rows]
        bounds = [each or (value, value) for each, value in zip(known, values, strict=True)]
        panels.append((measure.title, values, bounds))
    with mpl.rc_context(svg.RC):
        figure = svg.new_figure(1.9)
        for axes, (title, values, bounds) in zip(
            figure.subplots(
                1, len(panels), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.08}
            )[0],
            panels,
            strict=True,
        ):
            start, end = zoomed([low for low, _ in bounds], [high for _, high in bounds])
            lengths = [value - start for value in values]
            errors = np.array(
                [
                    (value - low, high - value)
                    for value, (low, high) in zip(values, bounds, strict=True)
                ]
            ).T.clip(min=0)
            axes.barh(names, lengths, left=start, color=colours, height=0.62)
            if view.interval_of_model:
                axes.errorbar(
                    values,
                    names,
                    xerr=errors,
                    fmt="none",
                    color=svg.INK,
                    elinewidth=1.1,
                    capsize=3.5,
                )
            for name, value, (_, high) in zip(names, values, bounds, strict=True):
                _beside(axes, high, name, f"{value:.2f}")
            axes.set_xlim(start, end)
            ticks = MaxNLocator(5).tick_values(start, end)
            axes.set_xticks([tick for tick in ticks if start <= tick <= min(end, 100)])
            # The space for the numbers is not a part of the axis.
            axes.spines["bottom"].set_bounds(start, min(end, 100))
            from_zero = "" if start == 0 else f", axis starts at {start:g}%"
            of = " of test images" if view.interval_of_model else ""
            axes.set_title(f"{title}, percent{of}{from_zero}")
            svg.quiet(axes, "x")
            axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()  # Both panels share this axis; FP32 comes first.
    whiskers = " Whiskers: 95% intervals." if view.interval_of_model else ""
    return figure, f"Accuracy of the saved models on the test split.{whiskers}"


def zoomed(lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """Return axis limits, in percent, at which the intervals and their differences are visible.

    The axis starts at a round number well below the lowest bound, or at 0 if that number is below
    10. The space at the right is for the numbers next to the bars.
    """
    low, high = min(lows), max(highs)
    span = max(high - low, 0.2)
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 100) if s >= span)
    start = math.floor((low - span / 2) / step) * step
    start = 0.0 if start < 10 else float(start)
    return start, high + 0.24 * (high - start)


def _beside(axes: Axes, x: float, y: Any, text: str) -> None:
    axes.annotate(text, (x, y), xytext=(6, 0), textcoords="offset points", va="center")


def throughput(report: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw images/s of FP32 and INT8 with the speedup above; one panel for each ISA cap."""
    rows, limits = speed_rows(report), caps(report)
    with mpl.rc_context(svg.RC):
        figure = svg.new_figure(2.6 * len(limits) + 0.3)
        panels = figure.subplots(len(limits), 1, squeeze=False, sharey=True).ravel()
        for axes, cap in zip(panels, limits, strict=True):
            _bars(axes, report, [row for row in rows if row.setting.isa_cap == cap])
            if len(limits) > 1:
                axes.set_title(cap_name(cap))
        panels[0].set_ylim(0, 1.28 * max(map(_highest, rows)))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
    unstable = (
        ""
        if all(row.stable for row in rows)
        else f" {text_format.UNSTABLE} Unstable; see table II."
    )
    return figure, f"Throughput. Above each group of bars: speedup of INT8 over FP32.{unstable}"


def _highest(row: SpeedRow) -> float:
    """Return the images/s of the highest bar of a row."""
    return max(row.fp32, *(speed.images_per_second for speed in row.engines))


def _bar_groups(rows: Sequence[SpeedRow]) -> Mapping[str, Sequence[float | None]]:
    """Return the images/s of each model, FP32 and INT8 first; None where it was not measured."""
    engines = dict.fromkeys(speed.engine for row in rows for speed in row.engines[1:])
    speeds = [{each.engine: each.images_per_second for each in row.engines} for row in rows]
    return {
        "fp32": [row.fp32 for row in rows],
        "int8": [row.int8 for row in rows],
        **{engine: [found.get(engine) for found in speeds] for engine in engines},
    }


def _bars(axes: Axes, report: Mapping[str, Any], rows: Sequence[SpeedRow]) -> None:
    places = np.arange(len(rows))
    groups = _bar_groups(rows)
    step = 0.76 / len(groups)
    for number, (model, values) in enumerate(groups.items()):
        label, colour = model_name(report, model), BAR_COLOURS[number % len(BAR_COLOURS)]
        shift = (number - (len(groups) - 1) / 2) * step
        heights = [value or 0.0 for value in values]
        bars = axes.bar(places + shift, heights, 0.95 * step, color=colour, label=label)
        texts = ["" if value is None else text_format.significant(value) for value in values]
        axes.bar_label(bars, texts, padding=2)
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            text_format.judged_times(row.ratio, row.stable),
            (float(place), _highest(row)),
            xytext=(0, 15),
            textcoords="offset points",
            ha="center",
            fontsize=11,
            fontweight="bold",
        )
    axes.set_xticks(places, [load_name(report, row.setting).replace(", ", "\n") for row in rows])
    centre, half = (len(rows) - 1) / 2, max(len(rows) / 2 + 0.1, 1.25)
    # Without this, a single pair of bars would fill the page.
    axes.set_xlim(centre - half, centre + half)
    axes.set_ylabel("images/s")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(axis="x", length=0)
    svg.quiet(axes, "y")


def latency(report: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw the distribution of batch latencies on a logarithmic axis, with p50 and p99."""
    entries = report["benchmark"]
    columns = min(2, len(entries))
    lines = math.ceil(len(entries) / columns)
    with mpl.rc_context(svg.RC):
        figure = svg.new_figure(1.9 * lines + 0.3)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[len(entries) :]:
            axes.set_visible(False)
        for axes, entry, row in zip(panels, entries, speed_rows(report), strict=False):
            for model in ("fp32", "int8"):
                _distribution(axes, entry[model], model, model_name(report, model))
            _latency_axis(axes, entry)
            axes.set_title(setting_name(report, row.setting))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure, (
        "Latency of one batch in ms on a logarithmic axis. Each distribution is scaled to its own "
        "peak. Solid line: p50. Dotted line: p99."
    )


def _distribution(axes: Axes, speed: Mapping[str, Any], model: str, label: str) -> None:
    edges = np.asarray(speed["histogram"]["edges_ms"], dtype=np.float64)
    counts = np.asarray(speed["histogram"]["counts"], dtype=np.float64)
    density = counts / np.diff(np.log(edges))
    colour = svg.MODEL_COLOURS[model]
    heights = density / density.max()
    axes.stairs(heights, edges, fill=True, color=colour, alpha=0.45, label=label)
    axes.stairs(heights, edges, color=colour, linewidth=0.9)
    axes.axvline(speed["latency_ms"]["p50"], color=colour, linewidth=1.6)
    axes.axvline(speed["latency_ms"]["p99"], color=colour, linewidth=1.4, linestyle=":")


def _latency_axis(axes: Axes, entry: Mapping[str, Any]) -> None:
    edges = [edge for m in ("fp32", "int8") for edge in entry[m]["histogram"]["edges_ms"]]
    low, high = min(edges) / 1.06, max(edges) * 1.06
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1.32)
    axes.xaxis.set_major_locator(FixedLocator(round_ticks(low, high)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_xlabel("ms")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    svg.quiet(axes, "x")


def round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between low and high, at least three if possible; 0 < low < high."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(range(10, 100, 5)), range(100, 1000)):
        scale = 1 if steps[0] == 1 else steps[0]
        candidates = [step / scale * 10.0**decade for decade in decades for step in steps]
        ticks = [float(f"{tick:.4g}") for tick in candidates if low <= tick <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: math.ceil(len(ticks) / 8)] if ticks else [float(f"{low:.4g}")]


def sizes(report: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw the size of the three models on disk."""
    mebibytes = [report["models"][model]["bytes"] / 1024**2 for model in MODELS]
    names = [model_name(report, model) for model in MODELS]
    unit, scale = ("MiB", 1.0) if max(mebibytes) >= 1 else ("KiB", 1024.0)
    with mpl.rc_context(svg.RC):
        figure = svg.new_figure(1.6)
        axes = figure.subplots()
        colours = [svg.MODEL_COLOURS[model] for model in MODELS]
        axes.barh(names, [scale * m for m in mebibytes], color=colours, height=0.62)
        for name, model, value in zip(names, MODELS, mebibytes, strict=True):
            _beside(axes, scale * value, name, text_format.size(report["models"][model]["bytes"]))
        axes.set_xlim(0, 1.15 * scale * max(mebibytes))
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.tick_params(axis="y", length=0)
        svg.quiet(axes, "x")
    return figure, "Size of the saved models."


def training(report: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw loss, primary measure and learning rate of each training phase."""
    measure = view_of(report).primary
    key, title = ("", "") if measure is None else (measure.key, measure.short)
    phases = [
        (title, report["training"][key])
        for title, key in (("Baseline", "baseline"), ("QAT", "qat"))
        if report["training"][key] is not None
    ]
    with mpl.rc_context(svg.RC):
        figure = svg.new_figure(4.6)
        grid = figure.subplots(3, len(phases), sharex="col", squeeze=False, height_ratios=(2, 2, 1))
        for column, (phase_title, phase) in enumerate(phases):
            _curves(list(grid[:, column]), phase, key)
            grid[0, column].set_title(phase_title, fontweight="bold")
            grid[2, column].set_xlabel("step")
        for axes, label in zip(grid[:, 0], ("loss", f"selection\n{title} %", "learning\nrate"),
                               strict=True):  # fmt: skip
            axes.set_ylabel(label)
        figure.align_ylabels(list(grid[:, 0]))
    return figure, (
        f"Training: loss, {title} on the selection split, and learning rate. The ring marks the "
        "checkpoint that was kept."
    )


def _curves(panels: Sequence[Axes], phase: Mapping[str, Any], key: str) -> None:
    loss, quality, rate = panels
    history, evaluations = phase["history"], phase["evaluations"]
    steps = [point["step"] for point in history]
    loss.plot(*thinned(steps, [point["loss"] for point in history]), color=svg.FP32, linewidth=1.1)
    rate.plot(steps, [point["lr"] for point in history], color=svg.FAINT, linewidth=1.3)
    rate.set_ylim(bottom=0)
    evaluated = [point["step"] for point in evaluations]
    quality.plot(
        evaluated,
        [point[key] for point in evaluations],
        color=svg.INT8,
        linewidth=1.3,
        marker="o",
        markersize=3,
    )
    best = phase.get(f"best_{key}")
    if phase["best_step"] is not None and best is not None:
        quality.plot(
            [phase["best_step"]],
            [best],
            linestyle="none",
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=svg.INK,
        )
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        svg.quiet(axes, "y")
    start, end = quality.get_ylim()
    quality.set_yticks([tick for tick in MaxNLocator(5).tick_values(start, end) if tick <= 100])
    # The space above 100 is for the markers.
    quality.set_ylim(start, min(end, 102))
    highest = max((point["lr"] for point in history), default=0.0)
    rate.set_yticks([0, highest], ["0", f"{highest:.3g}"])


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return at most ``MAX_POINTS`` points: means over consecutive groups of equal size."""
    if len(steps) <= MAX_POINTS:
        return list(steps), list(values)
    runs = np.array_split(np.arange(len(steps)), MAX_POINTS)
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    return [float(x[run].mean()) for run in runs], [float(y[run].mean()) for run in runs]
