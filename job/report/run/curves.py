"""The plot of precision and recall of a detector."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from job.report.render import svg
from job.report.tables import model_name

MAX_CLASSES = 12
_PER_ROW = 4


def curves(report: Mapping[str, Any]) -> tuple[Figure, str]:
    """Draw precision over recall of FP32 and INT8, one panel for each class."""
    found = report["accuracy"]["curves"]
    fp32, int8 = ({each["label"]: each for each in found[model]} for model in ("fp32", "int8"))
    labels = sorted(fp32)[:MAX_CLASSES]
    rows = -(-len(labels) // _PER_ROW)
    with mpl.rc_context(svg.RC):
        figure = svg.new_figure(1.9 * rows + 0.4)
        columns = min(_PER_ROW, len(labels))
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.ravel()[len(labels) :]:
            axes.set_visible(False)
        for axes, label in zip(grid.ravel(), labels, strict=False):
            for model, curve in (("fp32", fp32[label]), ("int8", int8[label])):
                axes.step(
                    [0.0, *curve["recall"]],
                    [*curve["precision"][:1], *curve["precision"]] or [0.0],
                    where="pre",
                    color=svg.MODEL_COLOURS[model],
                    label=model_name(report, model),
                    linewidth=1.2,
                )
            axes.set_title(f"class {label}")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.03)
            svg.quiet(axes, "both")
        for axes in grid[-1]:
            axes.set_xlabel("recall")
        for axes in grid[:, 0]:
            axes.set_ylabel("precision")
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=2)
    more = len(fp32) - len(labels)
    rest = f" {more} more in report.json." if more > 0 else ""
    return figure, f"Precision and recall by class at an IoU of 0.5.{rest}"
