"""The rows of the tutorial's tables I and II, as plain records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from job.benchmark.stability import is_wide
from job.stats import Interval

MODELS = ("fp32", "qat_fake", "int8")
ENGINE_NAMES = {"native": "native", "onednn": "oneDNN"}
INT8_ENGINE_NAMES = {"paddle": "Paddle", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
NO_CAP = "all"
# Its kernels are its own, and heed no variable.
UNCAPPED_NOTE = "The ISA cap binds oneDNN, which Paddle and OpenVINO use, not ONNX Runtime."


class MeasuredSetting(Protocol):
    """What tells one row of table II from another."""

    @property
    def batch_size(self) -> int:
        """Images in a batch."""

    @property
    def threads(self) -> int:
        """Threads of one instance."""

    @property
    def instances(self) -> int:
        """Processes that ran side by side."""

    @property
    def isa_cap(self) -> str:
        """Highest instruction set that oneDNN might use, or ``all``."""


@dataclass(frozen=True)
class AccuracyRow:
    """Table I: one saved model on the test split.

    Attributes:
        model: ``fp32``, ``qat_fake`` or ``int8``; another engine's name for its INT8 model.
        top1: percent.
        top1_interval: percent, 95%.
        top1_change: this model minus FP32 in points; None for FP32 itself.
        top1_change_interval: points, 95%, paired; known for INT8 only.
        top5: percent.
        top5_interval: percent, 95%.
        top5_change: this model minus FP32 in points; None for FP32 itself.
    """

    model: str
    top1: float
    top1_interval: Interval
    top1_change: float | None
    top1_change_interval: Interval | None
    top5: float
    top5_interval: Interval
    top5_change: float | None


@dataclass(frozen=True)
class ThroughputRow:
    """Table II: images/s at one batch size, in one scenario, under one ISA cap.

    ``fp32_engine`` is the faster of the two FP32 engines; ``ratio_interval`` (95%) is None when
    only one round was measured.
    """

    batch_size: int
    threads: int
    instances: int
    isa_cap: str
    isa: str
    fp32_engine: str
    fp32: float
    int8: float
    ratio: float
    ratio_interval: Interval | None
    fp32_native: float | None
    fp32_onednn: float | None
    stable: bool


@dataclass(frozen=True)
class LatencyRow:
    """Table II, continued: one model's latency of a batch in ms and its peak memory in bytes.

    A percentile is None where so few batches were timed that it would be the slowest of them.
    """

    batch_size: int
    threads: int
    instances: int
    isa_cap: str
    model: str
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    peak_rss_bytes: int


@dataclass(frozen=True)
class EngineRow:
    """Table II, continued: INT8 in one engine; only where others than Paddle were asked for."""

    batch_size: int
    threads: int
    instances: int
    isa_cap: str
    engine: str
    images_per_second: float
    ratio: float
    ratio_interval: Interval | None
    p50_ms: float
    fastest: bool
    stable: bool


def model_name(report: Mapping[str, Any], model: str) -> str:
    """What ``fp32``, ``qat_fake``, ``int8`` and other engines' INT8 models are called."""
    if model == "qat_fake":
        trained = report["training"]["qat"] is not None
        return f"Fake-quantized ({'QAT' if trained else 'PTQ'})"
    if model in ("openvino", "onnxruntime"):
        return f"INT8 in {INT8_ENGINE_NAMES[model]}"
    return {"fp32": "FP32", "int8": "INT8"}[model]


def scenario_name(row: MeasuredSetting) -> str:
    """How a row's model ran, such as ``1 thread`` or ``2 instances``."""
    if row.instances > 1:
        return f"{row.instances} instances"
    return f"{row.threads} thread{'' if row.threads == 1 else 's'}"


def load_name(report: Mapping[str, Any], row: MeasuredSetting) -> str:
    """What one row is called among those under its ISA cap, such as ``batch 1, 2 threads``."""
    scenarios = {(entry["threads"], entry["instances"]) for entry in report["benchmark"]}
    named = f", {scenario_name(row)}" if len(scenarios) > 1 else ""
    return f"batch {row.batch_size}{named}"


def setting_name(report: Mapping[str, Any], row: MeasuredSetting) -> str:
    """What one row is called: scenario and ISA cap are named only where they differ."""
    capped = f", {cap_name(row.isa_cap)}" if caps_differ(report) else ""
    return f"{load_name(report, row)}{capped}"


def cap_name(cap: str) -> str:
    """An ISA cap in words."""
    return "no ISA cap" if cap == NO_CAP else f"ISA cap {cap}"


def caps(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The ISA caps that the benchmark ran under, in the report's order."""
    return tuple(dict.fromkeys(entry["isa_cap"] for entry in report["benchmark"]))


def caps_differ(report: Mapping[str, Any]) -> bool:
    """Whether the benchmark ran under several ISA caps."""
    return len(caps(report)) > 1


def has_instances(report: Mapping[str, Any]) -> bool:
    """Whether the benchmark ran several instances side by side."""
    return any(entry["instances"] > 1 for entry in report["benchmark"])


def _pair(bounds: Any) -> Interval | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def accuracy_rows(report: Mapping[str, Any]) -> tuple[AccuracyRow, ...]:
    """Table I: FP32, fake-quantized, INT8, in this order, then INT8 in other engines."""
    accuracy = report["accuracy"]
    fp32, paired = accuracy["fp32"], accuracy["paired"]
    low, high = paired["top1_drop_interval"]
    rows = []
    for model, scores in {
        **{name: accuracy[name] for name in MODELS},
        **accuracy["engines"],
    }.items():
        reference = model == "fp32"
        rows.append(
            AccuracyRow(
                model=model,
                top1=scores["top1"],
                top1_interval=tuple(scores["top1_interval"]),
                top1_change=None if reference else scores["top1"] - fp32["top1"],
                # The report holds the drop, FP32 minus INT8; a change has the other sign.
                top1_change_interval=(-high, -low) if model == "int8" else None,
                top5=scores["top5"],
                top5_interval=tuple(scores["top5_interval"]),
                top5_change=None if reference else scores["top5"] - fp32["top5"],
            )
        )
    return tuple(rows)


def throughput_rows(report: Mapping[str, Any]) -> tuple[ThroughputRow, ...]:
    """Table II: one row for each setting, in the report's order."""
    return tuple(
        ThroughputRow(
            batch_size=entry["batch_size"],
            threads=entry["threads"],
            instances=entry["instances"],
            isa_cap=entry["isa_cap"],
            isa=entry["isa"],
            fp32_engine=entry["fp32"]["engine"],
            fp32=entry["fp32"]["images_per_second"],
            int8=entry["int8"]["images_per_second"],
            ratio=entry["ratio"],
            ratio_interval=_pair(entry["ratio_interval"]),
            fp32_native=entry["fp32_engines"].get("native"),
            fp32_onednn=entry["fp32_engines"].get("onednn"),
            stable=entry["stable"],
        )
        for entry in report["benchmark"]
    )


def latency_rows(report: Mapping[str, Any]) -> tuple[LatencyRow, ...]:
    """Table II, continued: FP32 then INT8 for each setting."""
    return tuple(
        LatencyRow(
            batch_size=entry["batch_size"],
            threads=entry["threads"],
            instances=entry["instances"],
            isa_cap=entry["isa_cap"],
            model=model,
            p50_ms=entry[model]["latency_ms"]["p50"],
            p90_ms=_quantile(entry[model], "p90", least=10),
            p99_ms=_quantile(entry[model], "p99", least=100),
            peak_rss_bytes=entry[model]["peak_rss_bytes"],
        )
        for entry in report["benchmark"]
        for model in ("fp32", "int8")
    )


def _quantile(speed: Mapping[str, Any], name: str, *, least: int) -> float | None:
    return float(speed["latency_ms"][name]) if speed["samples"] >= least else None


def engine_rows(report: Mapping[str, Any]) -> tuple[EngineRow, ...]:
    """Table II, continued: INT8 in every engine, Paddle first; none if it ran in Paddle alone."""
    return tuple(
        EngineRow(
            batch_size=entry["batch_size"],
            threads=entry["threads"],
            instances=entry["instances"],
            isa_cap=entry["isa_cap"],
            engine=engine,
            images_per_second=speed["images_per_second"],
            ratio=speed["ratio"],
            ratio_interval=_pair(speed["ratio_interval"]),
            p50_ms=speed["latency_ms"]["p50"],
            fastest=entry["fastest"] == engine,
            stable=is_stable(entry, speed),
        )
        for entry in report["benchmark"]
        if entry["engines"]
        for engine, speed in {"paddle": _paddle(entry), **entry["engines"]}.items()
    )


def is_stable(entry: Mapping[str, Any], speed: Mapping[str, Any]) -> bool:
    """Whether nothing disturbed a row's measurement, nor one engine's ratio in it."""
    bounds = speed["ratio_interval"]
    return bool(entry["stable"]) and not (bounds and is_wide(speed["ratio"], bounds))


def _paddle(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """INT8 in Paddle, in the shape of the other engines."""
    return {**entry["int8"], **{key: entry[key] for key in ("ratio", "ratio_interval")}}
