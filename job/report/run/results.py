"""Tables of a run: accuracy, model sizes, training."""

from collections.abc import Callable, Mapping
from typing import Any

from job import text_format
from job.report.render.blocks import Grid, figures, words
from job.report.tables import accuracy_rows, model_name

NONE = text_format.DASH


def accuracy_grid(report: Mapping[str, Any]) -> Grid:
    """Return table I: top-1 and top-5 of the saved models."""
    rows = tuple(
        (
            model_name(report, row.model),
            f"{row.top1:.2f}",
            text_format.interval(*row.top1_interval),
            NONE if row.top1_change is None else text_format.signed(row.top1_change),
            f"{row.top5:.2f}",
            text_format.interval(*row.top5_interval),
            NONE if row.top5_change is None else text_format.signed(row.top5_change),
        )
        for row in accuracy_rows(report)
    )
    columns = (
        *words("Model"),
        *figures("Top-1", "95%\ninterval", "Change", "Top-5", "95%\ninterval", "Change"),
    )
    engine = "its own engine" if report["accuracy"]["engines"] else "Paddle Inference"
    note = (
        f"{text_format.plural(report['accuracy']['images'], 'test image')}. Each saved model "
        f"was loaded into {engine} and scored. 95% interval: Wilson. Change: model minus FP32, in "
        "percentage points."
    )
    return Grid("Table I. Accuracy in percent", columns, rows, note)


def paired_text(report: Mapping[str, Any]) -> str:
    """Return the paired comparison of FP32 and INT8 in words."""
    paired = report["accuracy"]["paired"]
    low, high = paired["top1_drop_interval"]
    return (
        f"Correct only in FP32: {text_format.plural(paired['fp32_only_right'], 'image')}. Correct "
        f"only in INT8: {text_format.plural(paired['int8_only_right'], 'image')}. Top-1 of INT8 "
        "minus FP32 is "
        f"{text_format.signed(-paired['top1_drop'])} percentage points (95% interval "
        f"{text_format.signed_interval(-high, -low)}, Newcombe's method 10; mid-p McNemar test "
        f"{text_format.probability(paired['p_value'])})."
    )


def sizes_grid(report: Mapping[str, Any]) -> Grid:
    """Return the size of each saved model, also relative to FP32."""
    fp32 = report["models"]["fp32"]["bytes"]
    rows = tuple(
        (
            model_name(report, model),
            report["models"][model]["path"],
            text_format.size(report["models"][model]["bytes"]),
            f"{report['models'][model]['bytes'] / fp32:.2f}",
        )
        for model in report["models"]
    )
    columns = (*words("Model", "Folder"), *figures("Size", "Relative to FP32"))
    return Grid("Model sizes", columns, rows)


def training_grid(report: Mapping[str, Any]) -> Grid:
    """Return the training phases of the run, one column each."""
    names = {"baseline": "Baseline", "qat": "QAT"}
    phases = {
        names[phase]: report["training"][phase]
        for phase in names
        if report["training"][phase] is not None
    }
    facts: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "Steps": lambda t: text_format.count(t["steps"]),
        "Epochs": lambda t: f"{t['epochs']:.2f}",
        "Time": lambda t: text_format.duration(t["seconds"]),
        "Images/s": lambda t: text_format.significant(t["images_per_second"]),
        "Best step": lambda t: (
            NONE if t["best_step"] is None else text_format.count(t["best_step"])
        ),
        "Selection top-1 % at best step": lambda t: (
            NONE if t["best_top1"] is None else f"{t['best_top1']:.2f}"
        ),
        "Batch-norm statistics frozen": lambda t: _yes_no(t["freeze_bn_stats"]),
        "Scales calibrated before training": lambda t: _yes_no(t["calibrated"]),
    }
    rows = tuple((fact, *(text(t) for t in phases.values())) for fact, text in facts.items())
    return Grid("Training", (*words(""), *figures(*phases)), rows)


def _yes_no(value: bool | None) -> str:
    return NONE if value is None else "yes" if value else "no"
