"""The table of accuracy by class: the classes that lose most in INT8 come first."""

from collections.abc import Mapping
from typing import Any

from job import text_format
from job.report.deploy import class_names
from job.report.render.blocks import Grid, figures, words

MAX_CLASSES = 10


def classes_grid(report: Mapping[str, Any]) -> Grid | None:
    """Return FP32 and INT8 by class; None in reports of older versions."""
    found = report["accuracy"].get("per_class")
    if not found:
        return None
    names = class_names(report)
    worst = sorted(found, key=lambda row: (_change(row), row["int8"] / row["images"], row["label"]))
    rows = tuple(
        (
            names[row["label"]],
            text_format.count(row["images"]),
            f"{100 * row['fp32'] / row['images']:.2f}",
            f"{100 * row['int8'] / row['images']:.2f}",
            text_format.signed(100 * _change(row)),
        )
        for row in worst[:MAX_CLASSES]
    )
    columns = (*words("Class"), *figures("Test images", "FP32", "INT8", "Change"))
    note = (
        "Top-1 in percent. Change: INT8 minus FP32, in percentage points; the largest loss first."
    )
    more = len(found) - MAX_CLASSES
    if more > 0:
        classes = "class" if more == 1 else "classes"
        note += f" {text_format.count(more)} more {classes} in report.json."
    return Grid("Accuracy by class", columns, rows, note)


def _change(row: Mapping[str, int]) -> float:
    """Return the change of a class's share of correct answers, -1 to 1."""
    return (row["int8"] - row["fp32"]) / row["images"]
