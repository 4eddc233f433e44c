"""Rows of table II as dataclasses. A run's report is treated as a matrix of one model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.benchmark.stability import is_wide
from job.stats import Interval

ENGINE_NAMES = {"native": "native", "onednn": "oneDNN"}
INT8_ENGINE_NAMES = {
    "paddle": "Paddle",
    "paddle_openvino": "OpenVINO in Paddle",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
}
NO_CAP = "all"
# Timed batches that a percentile needs.
LEAST_SAMPLES: Mapping[str, int] = {"p90": 10, "p99": 100}


@dataclass(frozen=True)
class Setting:
    """The setting of one row of table II.

    Attributes:
        batch_size: images per batch.
        threads: threads of one process.
        instances: number of processes that ran at the same time.
        isa_cap: highest instruction set that oneDNN could use, or ``all``.
    """

    batch_size: int
    threads: int
    instances: int
    isa_cap: str


@dataclass(frozen=True)
class EngineSpeed:
    """INT8 in one engine.

    ``ratio`` is over the faster of Paddle's native and oneDNN FP32, ``fastest_fp32_ratio`` is over
    FP32 in the fastest of all engines; None in reports of older versions.
    """

    setting: Setting
    engine: str
    images_per_second: float
    ratio: float
    ratio_interval: Interval | None
    p50_ms: float
    stable: bool
    fastest_fp32_ratio: float | None


@dataclass(frozen=True)
class SpeedRow:
    """Table II: one model at one setting.

    Attributes:
        model: name of the model in a matrix, otherwise the name of the run.
        setting: batch size, threads, instances and ISA cap.
        isa: instruction set that INT8 used.
        fp32_engine: the faster of the two FP32 engines.
        fp32: images/s of FP32.
        int8: images/s of INT8 in Paddle.
        ratio: INT8 in Paddle over FP32.
        ratio_interval: 95%; None if only one round was measured.
        stable: whether the measurement was undisturbed.
        fp32_native: images/s of FP32 with native kernels; None if not measured.
        fp32_onednn: images/s of FP32 with oneDNN's kernels; None if not measured.
        fp32_paddle_openvino: images/s of FP32 in the OpenVINO engine in Paddle; None if not
            measured.
        fp32_samples: FP32 batches timed.
        int8_samples: INT8 batches timed.
        engines: INT8 in each engine, Paddle first.
        fastest: the fastest engine of INT8.
        published_fp32: published images/s of FP32, if any.
        published_int8: published images/s of INT8, if any.
    """

    model: str
    setting: Setting
    isa: str
    fp32_engine: str
    fp32: float
    int8: float
    ratio: float
    ratio_interval: Interval | None
    stable: bool
    fp32_native: float | None
    fp32_onednn: float | None
    fp32_paddle_openvino: float | None
    fp32_samples: int
    int8_samples: int
    engines: tuple[EngineSpeed, ...]
    fastest: str
    published_fp32: float | None
    published_int8: float | None

    @property
    def best(self) -> EngineSpeed:
        """INT8 in the fastest engine."""
        return next(speed for speed in self.engines if speed.engine == self.fastest)

    @property
    def published_ratio(self) -> float | None:
        """INT8 over FP32 of the published figures."""
        if self.published_fp32 is None or self.published_int8 is None:
            return None
        return self.published_int8 / self.published_fp32

    @property
    def reached(self) -> bool | None:
        """Whether Paddle's ratio is at least the published ratio; None without a published one."""
        return None if self.published_ratio is None else self.ratio >= self.published_ratio

    @property
    def best_reached(self) -> bool | None:
        """Whether the fastest engine's ratio is at least the published one; None without one."""
        return None if self.published_ratio is None else self.best.ratio >= self.published_ratio


@dataclass(frozen=True)
class LatencyRow:
    """Table II, continued: one model's latency of a batch in ms and its peak memory in bytes.

    A percentile is None if too few batches were timed: it would equal the slowest batch.
    """

    setting: Setting
    model: str
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    peak_rss_bytes: int


def is_matrix(report: Mapping[str, Any]) -> bool:
    """Return whether a report compares several models."""
    return "matrix" in report


def entries(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the models of a report: the entries of a matrix, or the run as its only entry."""
    if is_matrix(report):
        rows: Sequence[Mapping[str, Any]] = report["matrix"]
        return rows
    return ({**report, "model": report["name"], "published": None},)


def model_name(report: Mapping[str, Any], model: str) -> str:
    """Return the name shown for ``fp32``, ``qat_fake``, ``int8`` or another engine's model."""
    if model == "qat_fake":
        trained = report["training"]["qat"] is not None
        return f"Fake-quantized ({'QAT' if trained else 'PTQ'})"
    if model in INT8_ENGINE_NAMES:
        return f"INT8 in {INT8_ENGINE_NAMES[model]}"
    return {"fp32": "FP32", "int8": "INT8"}[model]


def settings(report: Mapping[str, Any]) -> tuple[Setting, ...]:
    """Return each setting of table II once, in the report's order."""
    rows = (row for entry in entries(report) for row in entry["benchmark"] or ())
    return tuple(dict.fromkeys(map(_setting, rows)))


def caps(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ISA caps of table II, in the report's order."""
    return tuple(dict.fromkeys(setting.isa_cap for setting in settings(report)))


def caps_differ(report: Mapping[str, Any]) -> bool:
    """Return whether the benchmark ran under several ISA caps."""
    return len(caps(report)) > 1


def has_instances(report: Mapping[str, Any]) -> bool:
    """Return whether the benchmark ran several processes at the same time."""
    return any(setting.instances > 1 for setting in settings(report))


def scenario_name(setting: Setting) -> str:
    """Return a setting's load, such as ``1 thread`` or ``2 instances``."""
    if setting.instances > 1:
        return f"{setting.instances} instances"
    return f"{setting.threads} thread{'' if setting.threads == 1 else 's'}"


def load_name(report: Mapping[str, Any], setting: Setting) -> str:
    """Return a setting's name without its ISA cap, such as ``batch 1, 2 threads``."""
    scenarios = {(each.threads, each.instances) for each in settings(report)}
    named = f", {scenario_name(setting)}" if scenarios != {(1, 1)} else ""
    return f"batch {setting.batch_size}{named}"


def setting_name(report: Mapping[str, Any], setting: Setting) -> str:
    """Return a setting's name; it includes the ISA cap if there are several."""
    return with_cap(report, load_name(report, setting), setting.isa_cap)


def with_cap(report: Mapping[str, Any], title: str, cap: str) -> str:
    """Return a title with its ISA cap if the benchmark ran under several."""
    return f"{title}, {cap_name(cap)}" if caps_differ(report) else title


def cap_name(cap: str) -> str:
    """Return an ISA cap in words."""
    return "no ISA cap" if cap == NO_CAP else f"ISA cap {cap}"


def speed_rows(report: Mapping[str, Any]) -> tuple[SpeedRow, ...]:
    """Return table II: one row for each model and setting, in the report's order."""
    return tuple(
        _speed(entry, row) for entry in entries(report) for row in entry["benchmark"] or ()
    )


def _speed(entry: Mapping[str, Any], row: Mapping[str, Any]) -> SpeedRow:
    published = entry["published"] or {}
    ratios = ("ratio", "ratio_interval", "fastest_fp32_ratio")
    paddle = {**row["int8"], **{key: row[key] for key in ratios if key in row}}
    return SpeedRow(
        model=entry["model"],
        setting=_setting(row),
        isa=row["isa"],
        fp32_engine=row["fp32"]["engine"],
        fp32=row["fp32"]["images_per_second"],
        int8=row["int8"]["images_per_second"],
        ratio=row["ratio"],
        ratio_interval=_interval(row["ratio_interval"]),
        stable=row["stable"],
        fp32_native=row["fp32_engines"].get("native"),
        fp32_onednn=row["fp32_engines"].get("onednn"),
        fp32_paddle_openvino=row["fp32_engines"].get("paddle_openvino"),
        fp32_samples=row["fp32"]["samples"],
        int8_samples=row["int8"]["samples"],
        engines=tuple(
            EngineSpeed(
                setting=_setting(row),
                engine=engine,
                images_per_second=speed["images_per_second"],
                ratio=speed["ratio"],
                ratio_interval=_interval(speed["ratio_interval"]),
                p50_ms=speed["latency_ms"]["p50"],
                stable=_is_stable(row, speed),
                fastest_fp32_ratio=speed.get("fastest_fp32_ratio"),
            )
            for engine, speed in {"paddle": paddle, **row["engines"]}.items()
        ),
        fastest=row["fastest"],
        published_fp32=published.get("fp32_images_per_second"),
        published_int8=published.get("int8_images_per_second"),
    )


def _is_stable(row: Mapping[str, Any], speed: Mapping[str, Any]) -> bool:
    """Return whether a row was undisturbed and the interval of one engine's ratio is narrow."""
    bounds = speed["ratio_interval"]
    return bool(row["stable"]) and not (bounds and is_wide(speed["ratio"], bounds))


def _setting(row: Mapping[str, Any]) -> Setting:
    return Setting(row["batch_size"], row["threads"], row["instances"], row["isa_cap"])


def _interval(bounds: Any) -> Interval | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))


def latency_rows(report: Mapping[str, Any]) -> tuple[LatencyRow, ...]:
    """Return table II of a run, continued: FP32 then INT8 for each setting."""
    return tuple(
        LatencyRow(
            setting=_setting(row),
            model=model,
            p50_ms=row[model]["latency_ms"]["p50"],
            p90_ms=percentile(row[model], "p90"),
            p99_ms=percentile(row[model], "p99"),
            peak_rss_bytes=row[model]["peak_rss_bytes"],
        )
        for row in report["benchmark"]
        for model in ("fp32", "int8")
    )


def percentile(speed: Mapping[str, Any], name: str) -> float | None:
    """Return ``p90`` or ``p99`` of a speed; None if it would equal the slowest batch."""
    enough = speed["samples"] >= LEAST_SAMPLES[name]
    return float(speed["latency_ms"][name]) if enough else None
