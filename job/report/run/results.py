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


def closeness_grid(report: Mapping[str, Any]) -> Grid | None:
    """Return how close the scores of each model are to FP32; None in reports of older versions."""
    found = report["accuracy"].get("closeness")
    if not found:
        return None
    rows = tuple(
        (
            model_name(report, name),
            f"{row['signal_to_noise_db']:.2f}",
            text_format.interval(*row["signal_to_noise_interval"]),
            f"{row['same_top1']:.2f}",
            text_format.interval(*row["same_top1_interval"]),
            f"{row['divergence']:.2g}",
            "{:.2g} to {:.2g}".format(*row["divergence_interval"]),
        )
        for name, row in found.items()
    )
    columns = (
        *words("Model"),
        *figures("SNR dB", "95%\ninterval", "Same\nclass %", "95%\ninterval"),
        *figures("KL", "95%\ninterval"),
    )
    note = (
        "SNR: signal-to-noise ratio of the scores against FP32. The mean score of each image is "
        "subtracted before. KL: mean Kullback-Leibler divergence of the class probabilities from "
        "FP32, in nats. Intervals: bootstrap over images, and Wilson."
    )
    return Grid("Closeness to FP32", columns, rows, note)


def candidates_text(report: Mapping[str, Any]) -> str | None:
    """Return which weights of QAT were kept, and what training gained; None without training."""
    training = report["training"]["qat"]
    if training is None or not training["evaluations"] or "selected_by" not in training:
        return None
    key = training["selected_by"]
    first = training["evaluations"][0]
    best = next(e for e in training["evaluations"] if e["step"] == training["best_step"])
    if first["step"] != 0:
        return None
    measures = {
        "divergence": "KL divergence from FP32",
        "cross_entropy": "cross entropy",
        "top1": "top-1",
    }
    kept = (
        "The weights before training were kept, because no step of training improved them."
        if best is first
        else f"The weights of step {text_format.count(best['step'])} were kept."
    )
    return (
        f"Candidates were compared by their {measures[key]} on the selection split: "
        f"{first[key]:.3g} before training, {best[key]:.3g} at best. {kept}"
    )


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


def calibration_grid(report: Mapping[str, Any]) -> Grid | None:
    """Return what calibration chose; None if it was switched off, and for older reports."""
    found = report.get("calibration")
    if found is None:
        return None
    parts = found["error_parts"]
    rows = (
        ("Activations with a measured range", text_format.count(found["activation_scales"])),
        ("Weights rounded by GPTQ", text_format.count(found["gptq_weights"])),
        ("Layers with a corrected mean output", text_format.count(found["corrected_layers"])),
        ("Activations with equalized channels", text_format.count(found["equalized_activations"])),
        ("SNR of quantized weights, dB", f"{parts['weights_db']:.1f}"),
        ("SNR of quantized activations, dB", f"{parts['activations_db']:.1f}"),
    )
    return Grid("Calibration", (*words(""), *figures("Value")), rows)


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
        "Selection SNR dB before training": lambda t: _decibels(t, 0),
        "Selection SNR dB at best step": lambda t: _decibels(t, t["best_step"]),
        "Batch-norm statistics frozen": lambda t: _yes_no(t["freeze_bn_stats"]),
        "Scales calibrated before training": lambda t: _yes_no(t["calibrated"]),
    }
    rows = tuple((fact, *(text(t) for t in phases.values())) for fact, text in facts.items())
    return Grid("Training", (*words(""), *figures(*phases)), rows)


def _decibels(training: Mapping[str, Any], step: int | None) -> str:
    found = [
        e["signal_to_noise_db"]
        for e in training["evaluations"]
        if e["step"] == step and e.get("signal_to_noise_db") is not None
    ]
    return f"{found[0]:.2f}" if found else NONE


def _yes_no(value: bool | None) -> str:
    return NONE if value is None else "yes" if value else "no"
