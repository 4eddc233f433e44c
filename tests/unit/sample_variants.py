"""Variants of the sample report, and any report as text of a terminal."""

import io
from collections.abc import Mapping
from typing import Any

from html_page import ATTACK
from rich.console import Console
from sample_report import benchmark_entry, engine_entry, sample_report

from job.report.terminal import print_tables


def failed_report() -> dict[str, Any]:
    """A report with a failed gate."""
    report = sample_report()
    report["status"] = "gate_failed"
    report["gates"][1].update(limit=4.0, passed=False)
    return report


def attacked_report() -> dict[str, Any]:
    """A report with an attack in every text that users control."""
    report = sample_report()
    report["name"] = ATTACK
    report["notes"] = [ATTACK]
    report["host"]["cpu_model"] = ATTACK
    report["host"]["flags"] = [ATTACK]
    report["host"]["kernel"] = ATTACK
    report["versions"] = {ATTACK: ATTACK}
    report["manifest"]["name"] = ATTACK
    report["inputs"][0]["path"] = ATTACK
    report["models"]["fp32"]["path"] = ATTACK
    report["data"]["splits"]["test"]["how"] = ATTACK
    report["data"]["bad_images"] = [{"path": ATTACK, "reason": ATTACK}]
    report["gates"][0]["name"] = ATTACK
    report["audit"]["left_in_fp32"] = [{"op": ATTACK, "type": ATTACK, "reason": ATTACK}]
    report["audit"]["primitives"][0]["implementation"] = ATTACK
    report["stages"][0]["name"] = ATTACK
    report["benchmark"][0]["isa"] = ATTACK
    return report


def on_terminal(report: Mapping[str, Any], width: int) -> str:
    output = io.StringIO()
    print_tables(report, Console(file=output, width=width, color_system=None))
    return output.getvalue()


def every_setting() -> dict[str, Any]:
    """A report with two caps, two scenarios, another engine, and a disturbed row."""
    report = sample_report()
    report["benchmark"] = [
        benchmark_entry(
            batch,
            100.0,
            300.0,
            instances=instances,
            scenario="latency" if instances == 1 else "throughput",
            isa_cap=cap,
            isa="avx512_core_amx" if cap == "all" else cap,
            engines={"openvino": engine_entry("openvino", batch, 100.0, 400.0)},
            fastest="openvino",
            score_difference=None if cap == "avx512_core_vnni" else 0.02 / batch,
        )
        for cap in ("avx512_core_vnni", "all")
        for instances in (1, 2)
        for batch in (1, 50)
    ]
    report["benchmark"][3] |= {
        "stable": False,
        "unstable_reasons": [
            {"what": "the ratio's interval is wide", "advice": "Raise benchmark.rounds."},
            {"what": "others were busy", "advice": "Stop them."},
        ],
    }
    return report
