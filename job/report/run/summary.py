"""The report in one glance: verdict, headline and four figures."""

from collections.abc import Mapping
from typing import Any

from job import text_format
from job.report.render.page import Card, Summary
from job.report.run import speed
from job.report.run.tables import caps_differ, has_instances, setting_name, throughput_rows

MAX_LISTED = 3


def summarize(report: Mapping[str, Any]) -> Summary:
    """Condense a valid report."""
    passed = report["status"] == "passed"
    notes = (str(note) for note in report["notes"])
    notices = (*notes, *_chance_notices(report), *speed.notices(report))
    if not report["comparable"]:
        notices = (
            "Not comparable: this machine lacks AVX512_VNNI and the run was forced with "
            "--allow-slow-isa. INT8 sums may saturate here, and speeds mean nothing elsewhere.",
            *notices,
        )
    told = [_speed_phrase(report), _top1_phrase(report), f"and {_size_phrase(report)}"]
    headline = f"{', '.join(phrase for phrase in told if phrase)}."
    return Summary(
        passed=passed,
        headline=f"{_verdict_phrase(report)} {headline}",
        notices=notices,
        cards=(_verdict_card(report), _speed_card(report), _top1_card(report), _size_card(report)),
    )


def _chance_notices(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What a comparison with a model that has learnt nothing is worth."""
    if report["accuracy"] is None:
        return ()
    fp32, chance = report["accuracy"]["fp32"], 100.0 / report["manifest"]["model"]["classes"]
    if fp32["top1_interval"][0] > chance:
        return ()
    return (
        f"FP32's top-1 of {fp32['top1']:.2f}% is no better than chance ({chance:.3g}%): that INT8 "
        "keeps it says nothing. Look at the weights and the training.",
    )


def gate_limit(name: str, limit: float) -> str:
    """A gate's limit in words, such as ``at least 2`` for ``min_speedup``."""
    bound = {"max": "at most", "min": "at least"}.get(name.split("_")[0], "limit")
    return f"{bound} {limit:g}"


def gate_value(value: float, limit: float) -> str:
    """What was measured, with enough digits that it does not look like the limit it missed."""
    digits = 2
    while digits < 8 and value != limit and round(value, digits) == limit:
        digits += 1
    return f"{value:.{digits}f}".replace("-", text_format.MINUS)


def _verdict_phrase(report: Mapping[str, Any]) -> str:
    failed = [gate for gate in report["gates"] if not gate["passed"]]
    if not failed:
        return "Passed:" if report["gates"] else "Done (no gates set):"
    told = "; ".join(
        f"{gate['name']} asks for {gate_limit(gate['name'], gate['limit'])}, "
        f"measured {gate_value(gate['value'], gate['limit'])}"
        for gate in failed
    )
    return f"Gate failed: {told}."


def _speed_phrase(report: Mapping[str, Any]) -> str:
    rows = throughput_rows(report)
    if len(rows) > MAX_LISTED:
        ratios = [row.ratio for row in rows]
        low, high = text_format.times(min(ratios)), text_format.times(max(ratios))
        where = _many_settings(report)
        return f"INT8 is {low} to {high} as fast as FP32 {where}"
    first, *others = [(text_format.times(row.ratio), setting_name(report, row)) for row in rows]
    told = [f"{first[0]} as fast as FP32 at {first[1]}"]
    told += [f"{ratio} at {setting}" for ratio, setting in others]
    if len(told) == 1:
        return f"INT8 is {told[0]}"
    return f"INT8 is {', '.join(told[:-1])} and {told[-1]}"


def _many_settings(report: Mapping[str, Any]) -> str:
    plain = not (caps_differ(report) or has_instances(report))
    what = "batch sizes and thread counts" if plain else "settings"
    return f"over {len(report['benchmark'])} {what}"


def _top1_phrase(report: Mapping[str, Any]) -> str:
    accuracy = report["accuracy"]
    if accuracy is None:
        return ""
    drop = accuracy["paired"]["top1_drop"]
    span = f"({accuracy['fp32']['top1']:.2f}% to {accuracy['int8']['top1']:.2f}%)"
    if f"{abs(drop):.2f}" == "0.00":
        return f"keeps its top-1 {span}"
    return f"{'loses' if drop > 0 else 'gains'} {abs(drop):.2f} points of top-1 {span}"


def _size_ratio(report: Mapping[str, Any]) -> float:
    return float(report["models"]["fp32"]["bytes"] / report["models"]["int8"]["bytes"])


def _size_phrase(report: Mapping[str, Any]) -> str:
    ratio = _size_ratio(report)
    fp32, int8 = (text_format.size(report["models"][model]["bytes"]) for model in ("fp32", "int8"))
    if text_format.times(ratio) == "1.00×":
        compared = "no smaller"
    elif ratio > 1:
        compared = f"{text_format.times(ratio)} smaller"
    else:
        compared = f"{text_format.times(1 / ratio)} larger"
    return f"takes {int8} instead of {fp32} on disk ({compared})"


def _verdict_card(report: Mapping[str, Any]) -> Card:
    gates = report["gates"]
    if not gates:
        return Card("Verdict", "Done", "no gates were set")
    failed = sum(not gate["passed"] for gate in gates)
    if failed:
        return Card(
            "Verdict", "Failed", f"{failed} of {text_format.plural(len(gates), 'gate')}", False
        )
    return Card("Verdict", "Passed", text_format.plural(len(gates), "gate"), True)


def _speed_card(report: Mapping[str, Any]) -> Card:
    rows = throughput_rows(report)
    ratios = [row.ratio for row in rows]
    low, high = text_format.times(min(ratios)), text_format.times(max(ratios))
    value = low if low == high else f"{low[:-1]}{text_format.DASH}{high}"
    if len(rows) > MAX_LISTED:
        detail = _many_settings(report)
    else:
        detail = "\n".join(
            f"{setting_name(report, row)}: {text_format.times(row.ratio)}" for row in rows
        )
    return Card("Speed, INT8 over FP32", value, detail)


def _top1_card(report: Mapping[str, Any]) -> Card:
    title = "Top-1, INT8 less FP32"
    if report["accuracy"] is None:
        return Card(title, text_format.DASH, "not measured")
    paired = report["accuracy"]["paired"]
    low, high = paired["top1_drop_interval"]
    return Card(
        title,
        f"{text_format.signed(-paired['top1_drop'])} points",
        f"95%: {text_format.signed_interval(-high, -low)}",
    )


def _size_card(report: Mapping[str, Any]) -> Card:
    fp32, int8 = (text_format.size(report["models"][model]["bytes"]) for model in ("fp32", "int8"))
    ratio = _size_ratio(report)
    value = (
        f"{text_format.times(ratio)} smaller"
        if ratio >= 1
        else f"{text_format.times(1 / ratio)} larger"
    )
    return Card("Size on disk", value, f"{int8}, FP32 {fp32}")
