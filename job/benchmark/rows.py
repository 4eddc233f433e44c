"""Computes the rows of table II from raw samples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from job import stats
from job.benchmark.rounds import ENGINE_FP32, FP32, NOOP, Measurement
from job.benchmark.samples import Samples, require_comparable
from job.benchmark.stability import reasons

INT8 = "int8"
# Engines other than Paddle's oneDNN that run INT8.
OTHER_ENGINES = ("paddle_openvino", "openvino", "onnxruntime")
PADDLE = "paddle"
# Key of each FP32 engine in a row.
FP32_ENGINES = {**{label: label for label in FP32}, ENGINE_FP32: "paddle_openvino"}


def row(measured: Measurement, engine_isa: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return one row: the faster FP32 engine against INT8 in Paddle and in other engines.

    Args:
        measured: the measurement.
        engine_isa: executed instruction sets of other engines, as far as they are known.

    Raises:
        IncomparableSamples: the samples were measured under different conditions.
    """
    by_label = {one.label: one for one in measured.samples}
    speeds = {label: stats.mean_throughput(one.rates) for label, one in by_label.items()}
    fp32_speeds = {label: speeds[label] for label in FP32_ENGINES if label in speeds}
    fastest = max((label for label in FP32 if label in speeds), key=lambda label: speeds[label])
    fastest_fp32 = max(fp32_speeds, key=lambda label: fp32_speeds[label])
    fp32, int8 = by_label[fastest], by_label[INT8]
    setting, comparison = int8.conditions.setting, compare(fp32, int8)
    others = {label: by_label[label] for label in OTHER_ENGINES if label in by_label}
    isa = engine_isa or {}
    int8_speeds = {PADDLE: speeds[INT8], **{label: speeds[label] for label in others}}
    unstable_reasons = reasons(
        measured.observed,
        {label: one.rates for label, one in by_label.items() if label != NOOP},
        comparison["ratio"],
        comparison["ratio_interval"],
    )
    return {
        "scenario": setting.scenario,
        "batch_size": setting.batch_size,
        "threads": setting.threads,
        "instances": setting.instances,
        "isa_cap": setting.isa_cap,
        "isa": int8.conditions.isa,
        "fp32": describe(fp32, fastest),
        "int8": describe(int8, "onednn"),
        **comparison,
        **compare_with_fastest(by_label[fastest_fp32], int8),
        "fp32_engines": {FP32_ENGINES[label]: speed for label, speed in fp32_speeds.items()},
        "fastest_fp32": FP32_ENGINES[fastest_fp32],
        "engines": {
            label: {
                **describe(one, label),
                **compare(fp32, one),
                **compare_with_fastest(by_label[fastest_fp32], one),
                **({"isa": isa[label]} if label in isa else {}),
            }
            for label, one in others.items()
        },
        "fastest": max(int8_speeds, key=lambda label: int8_speeds[label]),
        "harness_ms": stats.percentiles(by_label[NOOP].all).p50,
        "stable": not unstable_reasons,
        "unstable_reasons": [asdict(reason) for reason in unstable_reasons],
    }


def compare(fp32: Samples, int8: Samples) -> dict[str, Any]:
    """Return ``ratio``, INT8 over FP32, and ``ratio_interval`` (95%; None for one round).

    Raises:
        IncomparableSamples: the samples were measured under different conditions.
    """
    require_comparable(fp32, int8)
    ratio = stats.paired_ratio(fp32.rates, int8.rates)
    interval = None if ratio.interval is None else list(ratio.interval)
    return {"ratio": ratio.value, "ratio_interval": interval}


def compare_with_fastest(fp32: Samples, int8: Samples) -> dict[str, Any]:
    """Return :func:`compare` with FP32 in the fastest engine, with keys ``fastest_fp32_...``.

    Raises:
        IncomparableSamples: the samples were measured under different conditions.
    """
    return {f"fastest_fp32_{key}": value for key, value in compare(fp32, int8).items()}


def describe(samples: Samples, engine: str) -> dict[str, Any]:
    """Return the figures of one model in a row, from the latencies of all instances."""
    quantiles = stats.percentiles(samples.all)
    histogram = stats.latency_histogram(samples.all)
    return {
        "engine": engine,
        "images_per_second": stats.mean_throughput(samples.rates),
        "latency_ms": {"p50": quantiles.p50, "p90": quantiles.p90, "p99": quantiles.p99},
        "peak_rss_bytes": samples.peak_rss_bytes,
        "samples": len(samples.all),
        "histogram": {"edges_ms": list(histogram.edges_ms), "counts": list(histogram.counts)},
    }


def score_difference(
    scores: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]
) -> float:
    """Return the largest absolute difference of scores, divided by the range of the expected ones.

    Args:
        scores: [images][classes].
        expected: [images][classes].
    """
    actual, reference = np.asarray(scores), np.asarray(expected)
    spread = float(reference.max() - reference.min())
    largest = float(np.abs(actual - reference).max())
    return largest / spread if spread else float(largest > 0)
