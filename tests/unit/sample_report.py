"""A complete report with MADE-UP figures: test data only."""

import copy
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from job import stats
from job.report.render import html, markdown
from job.report.sections import page_of

IMAGES = 5000


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def speed(
    engine: str, batch: int, rate: float, spread: float, rss_mib: int, seed: int
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    typical_ms = 1000 * batch / rate
    samples = typical_ms * rng.lognormal(-spread * spread / 2, spread, 900)
    # A few slow outliers, as on a busy machine.
    samples[::150] *= 1.8
    quantiles = stats.percentiles(samples)
    histogram = stats.latency_histogram(samples)
    return {
        "engine": engine,
        "images_per_second": rate,
        "latency_ms": {"p50": quantiles.p50, "p90": quantiles.p90, "p99": quantiles.p99},
        "peak_rss_bytes": rss_mib * 1024 * 1024,
        "samples": int(samples.size),
        "histogram": {"edges_ms": list(histogram.edges_ms), "counts": list(histogram.counts)},
    }


def benchmark_entry(
    batch: int, fp32: float, int8: float, threads: int = 1, **changes: Any
) -> dict[str, Any]:
    wobble = (0.99, 1.0, 1.012, 0.996, 1.004)
    ratio = stats.paired_ratio([fp32] * 5, [int8 * w for w in wobble])
    assert ratio.interval is not None
    return {
        "scenario": "latency",
        "batch_size": batch,
        "threads": threads,
        "instances": 1,
        "isa_cap": "all",
        "isa": "avx512_core_amx",
        "fp32": speed("onednn" if batch > 1 else "native", batch, fp32, 0.02, 640 + batch, batch),
        "int8": speed("onednn", batch, int8, 0.03, 410 + batch, batch + 1),
        "ratio": ratio.value,
        "ratio_interval": list(ratio.interval),
        "fp32_engines": {
            "native": fp32 if batch == 1 else 0.84 * fp32,
            "onednn": fp32 if batch > 1 else 0.91 * fp32,
        },
        "engines": {},
        "fastest": "paddle",
        "harness_ms": 0.0125,
        "score_difference": None,
        "stable": True,
        "unstable_reasons": [],
        **changes,
    }


def engine_entry(engine: str, batch: int, fp32: float, int8: float) -> dict[str, Any]:
    """INT8 in an engine other than Paddle."""
    ratio = int8 / fp32
    return {
        **speed(engine, batch, int8, 0.02, 300 + batch, batch + 2),
        "ratio": ratio,
        "ratio_interval": [0.98 * ratio, 1.02 * ratio],
    }


def model_accuracy(top1_right: int, top5_right: int) -> dict[str, Any]:
    return {
        "top1": 100 * top1_right / IMAGES,
        "top5": 100 * top5_right / IMAGES,
        "top1_interval": list(stats.wilson_interval(top1_right, IMAGES)),
        "top5_interval": list(stats.wilson_interval(top5_right, IMAGES)),
    }


def training(
    steps: int, epochs: float, base_lr: float, start_loss: float, end_loss: float, top1: float
) -> dict[str, Any]:
    rng = np.random.default_rng(steps)
    qat = base_lr < 0.01
    history = []
    for step in range(0, steps, max(1, steps // 300)):
        done = step / steps
        decay = 0.1 ** ((done >= 0.5) + (done >= 0.75))
        loss = end_loss + (start_loss - end_loss) * math.exp(-5 * done)
        history.append(
            {
                "step": step,
                "loss": float(loss * rng.lognormal(0, 0.08)),
                "lr": base_lr * decay,
                "images_per_second": 111.0 if qat else 148.0,
            }
        )
    evaluations = [
        {
            "step": steps * i // 10,
            "top1": top1 - (0.6 if qat else 55) * math.exp(-0.7 * i),
            "top5": 99.0 - (0.1 if qat else 30) * math.exp(-0.9 * i),
            "cross_entropy": 0.45 + (0.02 if qat else 2) * math.exp(-0.7 * i),
            "divergence": 0.001 + 0.004 * math.exp(-0.7 * i) if qat else None,
            "signal_to_noise_db": 27 - 3 * math.exp(-0.7 * i) if qat else None,
        }
        for i in range(0 if qat else 1, 11)
    ]
    return {
        "steps": steps,
        "epochs": epochs,
        "seconds": steps * 128 / (111 if qat else 148),
        "images_per_second": 111.0 if qat else 148.0,
        "best_step": steps * 9 // 10,
        "best_top1": evaluations[8]["top1"],
        "selected_by": "divergence" if qat else "top1",
        "freeze_bn_stats": True if qat else None,
        "calibrated": True if qat else None,
        "history": history,
        "evaluations": evaluations,
    }


def manifest() -> dict[str, Any]:
    return {
        "version": 1,
        "name": "sample-resnet18-cifar10",
        "model": {
            "name": "resnet18",
            "classes": 10,
            "input_shape": [3, 32, 32],
            "width": 1.0,
            "weights": "w.pdparams",
        },
        "data": {"format": "class_folders", "root": "cifar10.tar.gz", "train_dir": "train"},
        "quantize": {
            "strategy": "aware",
            "weight_quantize_type": "channel_wise_abs_max",
            "quantize_op_types": ["conv2d", "depthwise_conv2d", "matmul_v2"],
        },
        "train": {"epochs": 2, "base_lr": 0.0001, "seed": 7},
        "benchmark": {"batch_sizes": [1, 50], "threads": [1]},
        "gates": {"int8_matches_fake": 20, "max_top1_drop": 0.5, "min_speedup": 1.5},
        "output": "runs/sample",
    }


def host() -> dict[str, Any]:
    return {
        "cpu_model": "Made-up Xeon 0000 (test data)",
        "flags": ["avx2", "avx512f", "avx512bw", "avx512_vnni", "amx_int8", "amx_tile"],
        "microcode": "0x2b000603",
        "cores": 2,
        "quota_cores": 2.0,
        "memory_bytes": 24 * 1024**3,
        "kernel": "6.1.0-test",
        "allocator": "glibc",
    }


def audit() -> dict[str, Any]:
    return {
        "int8_ops": 21,
        "fp32_ops": 1,
        "quantized_op_types": ["conv2d", "matmul_v2", "elementwise_add", "pool2d"],
        "folded": {"batch_norm": 20, "activation": 17, "residual_add": 8},
        "corrected": {"matrix_scales": 1, "residual_sums": 3},
        "agreement": {
            "images": 32,
            "int8_fake": {"signal_to_noise_db": 34.2, "same_top1": 96.9},
            "fake_fp32": {"signal_to_noise_db": 15.8, "same_top1": 90.6},
            "kept_in_fp32": [],
        },
        "ops_before": {"conv2d": 20, "batch_norm": 20, "relu": 17, "elementwise_add": 9,
                       "pool2d": 2, "matmul_v2": 1, "flatten_contiguous_range": 1},
        "ops_after": {"fused_conv2d": 20, "quantize": 1, "dequantize": 1, "pool2d": 2, "fc": 1,
                      "flatten_contiguous_range": 1},
        "left_in_fp32": [
            {"op": "conv2d_0.tmp_0", "type": "conv2d", "reason": "its input has no scale"},
        ],
        "differences": [
            {"op": "conv2d_19.tmp_0", "type": "conv2d", "signal_to_noise_db": 17.25,
             "largest_error": 0.46875},
            {"op": "pool2d_1.tmp_0", "type": "pool2d", "signal_to_noise_db": 41.5,
             "largest_error": 0.00375},
        ],
        "fallback": None,
        "primitives": [
            {"kind": "convolution", "implementation": "brgconv:avx512_core_amx",
             "data_type": "u8:s8:u8", "count": 1900, "milliseconds": 512.25},
            {"kind": "convolution", "implementation": "jit:avx512_core",
             "data_type": "f32:f32:f32", "count": 100, "milliseconds": 61.5},
            {"kind": "reorder", "implementation": "jit:uni",
             "data_type": "s8:u8", "count": 800, "milliseconds": 40.125},
            {"kind": "inner_product", "implementation": "brgemm:avx512_core_amx",
             "data_type": "u8:s8:f32", "count": 100, "milliseconds": 2.75},
        ],
    }  # fmt: skip


def kinds(**milliseconds: float) -> dict[str, Any]:
    """Time by kind, the slowest first; names with underscores for spaces."""
    rows = [
        {"kind": kind.replace("_", " "), "count": 2, "milliseconds": ms}
        for kind, ms in sorted(milliseconds.items(), key=lambda item: -item[1])
    ]
    return {"milliseconds": sum(milliseconds.values()), "kinds": rows}


def breakdown_part(isa_cap: str = "all") -> dict[str, Any]:
    int8 = kinds(convolution=0.7, matrix_product=0.05, **{"reorder: change of sign": 0.25})
    layer = {
        "op": "conv2d_7.tmp_0",
        "shape": "mb1_ic64oc128_ih32oh16kh3sh2dh0ph1_iw32ow16kw3sw2dw0pw1",
        "fp32_ms": 0.25,
        "int8_ms": 0.125,
        "ratio": 2.0,
        "implementation": "brgconv:avx512_core_amx",
        "folded": ["sum", "relu"],
    }
    return {
        "isa_cap": isa_cap,
        "batch_size": 1,
        "fp32": kinds(convolution=1.6, matrix_product=0.2, eltwise=0.15),
        "int8": int8,
        "dispatch_ms": {"fp32": 0.04, "int8": 0.28},
        "reorder_share": 0.25,
        "slowest": [
            layer,
            {
                **layer,
                "op": "",
                "shape": "mb1ic512oc10",
                "fp32_ms": None,
                "int8_ms": 0.05,
                "ratio": None,
                "folded": [],
            },
        ],
        "left_in_fp32": [
            {
                "op": "conv2d_0.tmp_0",
                "kind": "convolution",
                "shape": "mb1_ic3oc16_ih32oh32kh3_iw32ow32kw3",
                "milliseconds": 0.03125,
            }
        ],
        "islands": [{"op": "linear_0.tmp_0", "type": "fc"}],
        "advice": ["Reorders take 0.250 ms (25%) of INT8's time: 8 × change of sign 0.250 ms."],
    }


def files(*paths: str) -> list[dict[str, Any]]:
    return [{"path": path, "bytes": 1000 + 977 * len(path), "sha256": digest(path)}
            for path in paths]  # fmt: skip


def stages() -> list[dict[str, Any]]:
    times = {"prepare": 21.4, "baseline": 2710.0, "qat": 900.2, "convert": 8.8,
             "int8": 11.9, "accuracy": 64.0, "benchmark": 75.5}  # fmt: skip
    return [
        {
            "name": name,
            "status": "reused" if name in ("prepare", "baseline") else "ran",
            "seconds": seconds,
            "key": digest(name),
        }
        for name, seconds in times.items()
    ]


def data() -> dict[str, Any]:
    return {
        "format": "class_folders",
        "classes": 10,
        "splits": {
            "train": {"images": 22500, "how": "train, less the selection split"},
            "calibration": {"images": 512, "how": "the first 512 of train, shuffled with seed 7"},
            "selection": {"images": 2500, "how": "10% of each class of train, cut with seed 0"},
            "test": {"images": IMAGES, "how": "val_dir, as given"},
        },
        "bad_images": [
            {"path": "train/cat/00017.png", "reason": "truncated: 812 of 2,310 bytes"},
        ],
        "empty_classes": [],
        "copies": [],
    }


def accuracy() -> dict[str, Any]:
    return {
        "images": IMAGES,
        "fp32": model_accuracy(4262, 4968),
        "qat_fake": model_accuracy(4259, 4967),
        "int8": model_accuracy(4256, 4966),
        "engines": {},
        "paired": {
            "fp32_only_right": 31,
            "int8_only_right": 25,
            "p_value": stats.mcnemar_mid_p(31, 25),
            "top1_drop": 100 * 6 / IMAGES,
            "top1_drop_interval": list(stats.paired_difference_interval(4231, 31, 25, 713)),
        },
        "paired_fake": {
            "top1_drop": 100 * 3 / IMAGES,
            "top1_drop_interval": list(stats.paired_difference_interval(4240, 22, 19, 719)),
        },
        "paired_int8_fake": {
            "top1_drop": 100 * 3 / IMAGES,
            "top1_drop_interval": list(stats.paired_difference_interval(4240, 19, 16, 725)),
        },
        "closeness": {name: closeness(db) for name, db in (("qat_fake", 26.9), ("int8", 26.3))},
    }


def closeness(decibels: float) -> dict[str, Any]:
    return {
        "signal_to_noise_db": decibels,
        "signal_to_noise_interval": [decibels - 0.18, decibels + 0.19],
        "same_top1": 98.4,
        "same_top1_interval": list(stats.wilson_interval(4920, IMAGES)),
        "divergence": 0.0021,
        "divergence_interval": [0.0019, 0.0023],
    }


def _build() -> dict[str, Any]:
    return {
        "version": 1,
        "name": "sample-resnet18-cifar10",
        "created_at": "2001-02-03T04:05:06Z",
        "status": "passed",
        "comparable": True,
        "notes": ["Made-up test data: no figure here was measured."],
        "manifest": manifest(),
        "host": host(),
        "versions": {"python": "3.11.2", "paddlepaddle": "3.2.2", "paddleslim": "2.6.0"},
        "isa": {"fp32": "avx512_core", "int8": "avx512_core_amx"},
        "seeds": {"baseline": 3, "train": 7},
        "inputs": files("manifests/cifar10.json", "data/cifar10.tar.gz"),
        "artifacts": files("fp32/model.pdmodel", "fp32/model.pdiparams", "int8/model.pdmodel"),
        "data": data(),
        "models": {
            "fp32": {"path": "fp32", "bytes": 44_780_000},
            "qat_fake": {"path": "qat_fake", "bytes": 11_420_000},
            "int8": {"path": "int8", "bytes": 11_630_000},
        },
        "training": {
            "baseline": training(5270, 30.0, 0.1, 2.3, 0.12, 85.6),
            "qat": training(351, 2.0, 0.0001, 0.16, 0.13, 85.3),
        },
        "calibration": {
            "activation_scales": 21,
            "gptq_weights": 11,
            "corrected_layers": 10,
            "equalized_activations": 5,
            "error_parts": {"weights_db": 31.5, "activations_db": 26.8},
        },
        "accuracy": accuracy(),
        "benchmark": [benchmark_entry(1, 503.0, 781.0), benchmark_entry(50, 1672.0, 5867.0)],
        "audit": audit(),
        "breakdown": [breakdown_part()],
        "gates": [
            {"name": "max_top1_drop", "limit": 0.5, "value": 0.12, "passed": True, "reason": None},
            {
                "name": "min_speedup",
                "limit": 1.5,
                "value": 781 / 503,
                "passed": True,
                "reason": None,
            },
            {
                "name": "int8_matches_fake",
                "limit": 20,
                "value": 34.2,
                "passed": True,
                "reason": None,
            },
        ],
        "stages": stages(),
    }


_SAMPLE = _build()


def sample_report() -> dict[str, Any]:
    """Return a copy that a test may change."""
    return copy.deepcopy(_SAMPLE)


def as_html(report: Mapping[str, Any]) -> str:
    return html.render(page_of(report))


def as_markdown(report: Mapping[str, Any]) -> str:
    return markdown.render(page_of(report))
