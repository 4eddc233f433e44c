"""Tables of a run: model sizes, calibration, training."""

from collections.abc import Callable, Mapping
from typing import Any

from job import text_format
from job.report.render.blocks import Grid, figures, words
from job.report.tables import model_name
from job.report.views import view_of

NONE = text_format.DASH


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
        "loss": "loss",
        "signal_to_noise_db": "signal-to-noise ratio against FP32 in dB",
        "top1": "top-1",
        "map": "mAP@0.5",
    }
    kept = (
        "The weights before training were kept, because no step of training improved them."
        if best is first
        else f"The weights of step {text_format.count(best['step'])} were kept."
    )
    return (
        f"Candidates were compared by their {measures[key]} on the selection split: "
        f"{first[key]:.3g} before training, {best[key]:.3g} at the best step. {kept}"
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
    measure = view_of(report).primary

    def best(phase: Mapping[str, Any]) -> str:
        value = phase.get(f"best_{measure.key}") if measure else None
        return NONE if value is None else f"{value:.2f}"

    facts: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "Steps": lambda t: text_format.count(t["steps"]),
        "Epochs": lambda t: f"{t['epochs']:.2f}",
        "Time": lambda t: text_format.duration(t["seconds"]),
        "Images/s": lambda t: text_format.significant(t["images_per_second"]),
        "Best step": lambda t: (
            NONE if t["best_step"] is None else text_format.count(t["best_step"])
        ),
        **({f"Selection {measure.short} % at best step": best} if measure else {}),
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
