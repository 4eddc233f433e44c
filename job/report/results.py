"""Tables of what was measured: gates, accuracy, speed, sizes, training."""

from collections.abc import Callable, Mapping
from typing import Any

from job.report import numbers
from job.report.blocks import Grid, figures, words
from job.report.summary import gate_limit, gate_value
from job.report.tables import (
    ENGINE_NAMES,
    MODELS,
    accuracy_rows,
    latency_rows,
    model_name,
    throughput_rows,
)

NONE = numbers.DASH


def gates_grid(report: Mapping[str, Any]) -> Grid:
    """The gates with limit, value and verdict."""
    rows = tuple(
        (
            gate["name"],
            gate_limit(gate["name"], gate["limit"]),
            gate_value(gate["value"], gate["limit"]),
            "passed" if gate["passed"] else "FAILED",
        )
        for gate in report["gates"]
    )
    columns = (*words("Gate"), *figures("Limit", "Measured"), *words("Verdict"))
    return Grid("Gates", columns, rows)


def accuracy_grid(report: Mapping[str, Any]) -> Grid:
    """Table I: top-1 and top-5 of the three saved models."""
    rows = tuple(
        (
            model_name(report, row.model),
            f"{row.top1:.2f}",
            numbers.interval(*row.top1_interval),
            NONE if row.top1_change is None else numbers.signed(row.top1_change),
            f"{row.top5:.2f}",
            numbers.interval(*row.top5_interval),
            NONE if row.top5_change is None else numbers.signed(row.top5_change),
        )
        for row in accuracy_rows(report)
    )
    columns = (
        *words("Model"),
        *figures("Top-1", "95%", "Change", "Top-5", "95%", "Change"),
    )
    note = (
        f"{numbers.plural(report['accuracy']['images'], 'test image')}; each saved model was "
        "loaded again in Paddle Inference. 95%: Wilson interval. Change: points against FP32."
    )
    return Grid("Table I. Accuracy in percent", columns, rows, note)


def paired_text(report: Mapping[str, Any]) -> str:
    """FP32 against INT8, image by image, in words."""
    paired = report["accuracy"]["paired"]
    low, high = paired["top1_drop_interval"]
    fp32_only = numbers.plural(paired["fp32_only_right"], "image")
    return (
        f"Image by image, only FP32 is right on {fp32_only} and only INT8 on "
        f"{numbers.count(paired['int8_only_right'])}. INT8's top-1 changes by "
        f"{numbers.signed(-paired['top1_drop'])} points (95% interval "
        f"{numbers.signed_interval(-high, -low)}, Newcombe's method 10; mid-p McNemar test "
        f"{numbers.probability(paired['p_value'])})."
    )


def throughput_grid(report: Mapping[str, Any]) -> Grid:
    """Table II: images/s and their ratio."""
    rows = throughput_rows(report)
    cells = tuple(
        (
            str(row.batch_size),
            str(row.threads),
            numbers.significant(row.fp32),
            numbers.significant(row.int8),
            numbers.times(row.ratio),
            NONE if row.ratio_interval is None else numbers.interval(*row.ratio_interval),
        )
        for row in rows
    )
    columns = figures("Batch", "Threads", "FP32 images/s", "INT8 images/s", "Ratio", "95% interval")
    return Grid("Table II. Speed", columns, cells, f"{_isa_note(report)} {_engine_note(report)}")


def _isa_note(report: Mapping[str, Any]) -> str:
    isas = sorted({row.isa for row in throughput_rows(report)})
    return f"INT8 ran on {', '.join(isas)}."


def _engine_note(report: Mapping[str, Any]) -> str:
    engines = sorted({ENGINE_NAMES[row.fp32_engine] for row in throughput_rows(report)})
    return f"FP32 is the faster of native and oneDNN kernels (here {' and '.join(engines)})."


def latency_grid(report: Mapping[str, Any]) -> Grid:
    """Table II, continued: latency percentiles and peak memory."""
    rows = tuple(
        (
            str(row.batch_size),
            str(row.threads),
            model_name(report, row.model),
            numbers.significant(row.p50_ms),
            numbers.significant(row.p90_ms),
            numbers.significant(row.p99_ms),
            numbers.size(row.peak_rss_bytes),
        )
        for row in latency_rows(report)
    )
    columns = (
        *figures("Batch", "Threads"),
        *words("Model"),
        *figures("p50 ms", "p90 ms", "p99 ms", "Peak memory"),
    )
    note = (
        "Latency of one batch, by nearest rank. Peak memory: resident set of the model's process."
    )
    return Grid("Table II, continued. Latency and memory", columns, rows, note)


def engines_grid(report: Mapping[str, Any]) -> Grid:
    """FP32 in both engines: the ratio is against the faster one."""
    rows = tuple(
        (
            str(row.batch_size),
            str(row.threads),
            _timed(row.fp32_native),
            _timed(row.fp32_onednn),
            ENGINE_NAMES[row.fp32_engine],
            numbers.count(entry["fp32"]["samples"]),
            numbers.count(entry["int8"]["samples"]),
        )
        for row, entry in zip(throughput_rows(report), report["benchmark"], strict=True)
    )
    columns = (
        *figures("Batch", "Threads", "Native images/s", "oneDNN images/s"),
        *words("Used"),
        *figures("FP32 batches timed", "INT8 batches timed"),
    )
    return Grid("FP32 engines and samples", columns, rows)


def sizes_grid(report: Mapping[str, Any]) -> Grid:
    """Size of the three saved models."""
    fp32 = report["models"]["fp32"]["bytes"]
    rows = tuple(
        (
            model_name(report, model),
            report["models"][model]["path"],
            numbers.size(report["models"][model]["bytes"]),
            f"{report['models'][model]['bytes'] / fp32:.2f}",
        )
        for model in MODELS
    )
    columns = (*words("Model", "Folder"), *figures("Size", "Share of FP32"))
    return Grid("Model sizes", columns, rows)


def training_grid(report: Mapping[str, Any]) -> Grid:
    """The training phases of the run, one column each."""
    names = {"baseline": "Baseline", "qat": "QAT"}
    phases = {
        names[phase]: report["training"][phase]
        for phase in names
        if report["training"][phase] is not None
    }
    facts: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "Steps": lambda t: numbers.count(t["steps"]),
        "Epochs": lambda t: f"{t['epochs']:.2f}",
        "Time": lambda t: numbers.duration(t["seconds"]),
        "Images/s": lambda t: numbers.significant(t["images_per_second"]),
        "Best step": lambda t: NONE if t["best_step"] is None else numbers.count(t["best_step"]),
        "Selection top-1 % there": lambda t: (
            NONE if t["best_top1"] is None else f"{t['best_top1']:.2f}"
        ),
        "Batch-norm statistics frozen": lambda t: _yes_no(t["freeze_bn_stats"]),
        "Scales calibrated first": lambda t: _yes_no(t["calibrated"]),
    }
    rows = tuple((fact, *(tell(t) for t in phases.values())) for fact, tell in facts.items())
    return Grid("Training", (*words(""), *figures(*phases)), rows)


def _yes_no(value: bool | None) -> str:
    return NONE if value is None else "yes" if value else "no"


def _timed(images_per_second: float | None) -> str:
    """Return images/s, or a dash for an engine that the pilot showed to be far slower."""
    return "–" if images_per_second is None else numbers.significant(images_per_second)
