"""A complete matrix report with MADE-UP measurements: test data only.

The published figures are the tutorial's.
"""

import copy
from typing import Any

from sample_report import benchmark_entry, breakdown_part, sample_report

PUBLISHED = {
    "mobilenet_v1": (73.98, 227.73, 70.72, 70.78, 89.47, 89.39),
    "resnet50": (13.15, 49.33, 76.62, 76.53, 93.01, 92.98),
    "vgg19": (2.83, 8.67, 72.30, 72.09, 90.19, 90.13),
}
KEYS = (
    "fp32_images_per_second",
    "int8_images_per_second",
    "qat_fake_top1",
    "int8_top1",
    "qat_fake_top5",
    "int8_top5",
)


def rows(fp32: float, ratios: tuple[float, ...]) -> list[dict[str, Any]]:
    """Table II of one model: two ISA caps, each at two batch sizes."""
    settings = (("avx512_core_vnni", 1), ("avx512_core_vnni", 50), ("all", 1), ("all", 50))
    return [
        benchmark_entry(
            batch,
            fp32,
            fp32 * ratio,
            isa_cap=cap,
            isa="avx512_core_vnni" if cap != "all" else "avx512_core_amx",
        )
        for (cap, batch), ratio in zip(settings, ratios, strict=True)
    ]


def entry(name: str, fp32: float, ratios: tuple[float, ...]) -> dict[str, Any]:
    report = sample_report()
    return {
        "model": name,
        "status": "passed",
        "error": None,
        "report": f"{name}/report.json",
        "published": dict(zip(KEYS, PUBLISHED[name], strict=True)),
        "accuracy": report["accuracy"],
        "benchmark": rows(fp32, ratios),
        "audit": report["audit"],
        "breakdown": [breakdown_part(cap) for cap in ("avx512_core_vnni", "all")],
        "gates": [],
        "models": report["models"],
    }


def _build() -> dict[str, Any]:
    report = sample_report()
    return {
        "version": 1,
        "name": "sample-tables",
        "created_at": "2001-02-03T04:05:06Z",
        "status": "passed",
        "manifest": {"version": 1, "name": "sample-tables"},
        "host": report["host"],
        "versions": report["versions"],
        "notes": ["Made-up test data: no figure here was measured."],
        "matrix": [
            entry("mobilenet_v1", 92.0, (2.74, 3.47, 2.92, 5.91)),
            entry("resnet50", 15.8, (3.79, 3.84, 5.13, 7.27)),
            entry("vgg19", 3.8, (3.11, 3.27, 3.88, 5.14)),
        ],
    }


_SAMPLE = _build()


def sample_matrix() -> dict[str, Any]:
    """Return a copy that a test may change."""
    return copy.deepcopy(_SAMPLE)


def fail(report: dict[str, Any], index: int, message: str, exit_code: int) -> None:
    """Change a report as if one of its models had failed."""
    failed = report["matrix"][index]
    failed |= dict.fromkeys(
        ("report", "accuracy", "benchmark", "audit", "breakdown", "gates", "models")
    )
    failed |= {"status": "failed", "error": {"message": message, "exit_code": exit_code}}
    report["status"] = "failed"


def make_synthetic(report: dict[str, Any]) -> None:
    """Change a report as if every model had run on synthetic images."""
    for model in report["matrix"]:
        model["accuracy"] = None
