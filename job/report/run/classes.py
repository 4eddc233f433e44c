"""The table of accuracy by class: the classes that lose most in INT8 come first."""

from collections.abc import Mapping
from typing import Any

from job import text_format
from job.report.deploy import class_names
from job.report.render.blocks import Grid, figures, words

MAX_CLASSES = 10


def classes_grid(report: Mapping[str, Any]) -> Grid | None:
    """Return FP32 and INT8 by class; None if the record has no classes."""
    if "class_ap" in report["accuracy"].get("fp32", {}):
        return precision_grid(report)
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


def precision_grid(report: Mapping[str, Any]) -> Grid:
    """Return the average precision of each class; classes without objects are left out."""
    accuracy, names = report["accuracy"], class_names(report)
    pairs = zip(accuracy["fp32"]["class_ap"], accuracy["int8"]["class_ap"], strict=True)
    found = [(label, *pair) for label, pair in enumerate(pairs) if None not in pair]
    worst = sorted(found, key=lambda row: (row[2] - row[1], row[2], row[0]))
    rows = tuple(
        (names[label], str(label), f"{fp32:.2f}", f"{int8:.2f}", text_format.signed(int8 - fp32))
        for label, fp32, int8 in worst[:MAX_CLASSES]
    )
    note = (
        "Average precision in percent at an IoU of 0.5, area under the curve. Change: INT8 minus "
        "FP32, in percentage points; the largest loss first."
    )
    more = len(found) - MAX_CLASSES
    if more > 0:
        classes = "class" if more == 1 else "classes"
        note += f" {text_format.count(more)} more {classes} in report.json."
    columns = (*words("Class"), *figures("Number", "FP32", "INT8", "Change"))
    return Grid("Average precision by class", columns, rows, note)


def _change(row: Mapping[str, int]) -> float:
    """Return the change of a class's share of correct answers, -1 to 1."""
    return (row["int8"] - row["fp32"]) / row["images"]
