"""A matrix in one glance: verdict, headline and four figures."""

from collections.abc import Mapping
from typing import Any

from job import text_format
from job.report.matrix.tables import ModelSpeed, accuracy_rows, speed_rows
from job.report.render.page import Card, Summary


def summarize(report: Mapping[str, Any]) -> Summary:
    """Condense a valid matrix report."""
    rows = speed_rows(report)
    told = [phrase for phrase in (_speed_phrase(rows), _reached_phrase(rows)) if phrase]
    headline = " ".join([_verdict_phrase(report), *(f"{phrase}." for phrase in told)])
    return Summary(
        passed=report["status"] == "passed",
        headline=headline,
        notices=(*(str(note) for note in report["notes"]), *_unstable_notices(rows)),
        cards=(_verdict_card(report), _speed_card(rows), _reached_card(rows), _top1_card(report)),
    )


def _named(report: Mapping[str, Any], status: str) -> list[str]:
    return [entry["model"] for entry in report["matrix"] if entry["status"] == status]


def _verdict_phrase(report: Mapping[str, Any]) -> str:
    count = text_format.plural(len(report["matrix"]), "model")
    failed, missed = _named(report, "failed"), _named(report, "gate_failed")
    told = [f"failed: {', '.join(failed)}"] if failed else []
    told += [f"a gate failed: {', '.join(missed)}"] if missed else []
    unfinished = _named(report, "unfinished")
    told += [f"no result yet: {', '.join(unfinished)}"] if unfinished else []
    if told:
        return f"{count}; {'; '.join(told)}."
    gated = any(entry["gates"] for entry in report["matrix"])
    return f"{count}, {'all passed' if gated else 'all done'}."


def _span(rows: tuple[ModelSpeed, ...]) -> tuple[str, str]:
    ratios = [row.ratio for row in rows]
    return text_format.times(min(ratios)), text_format.times(max(ratios))


def _unstable_notices(rows: tuple[ModelSpeed, ...]) -> tuple[str, ...]:
    unstable = sum(not row.stable for row in rows)
    if not unstable:
        return ()
    which = "its only ratio" if len(rows) == 1 else f"{unstable} of its {len(rows)} ratios"
    verb = "is" if unstable == 1 else "are"
    return (f"Table II: {which} {verb} unstable, marked {text_format.UNSTABLE} below.",)


def _speed_phrase(rows: tuple[ModelSpeed, ...]) -> str:
    if not rows:
        return ""
    low, high = _span(rows)
    return f"INT8 is {low if low == high else f'{low} to {high}'} as fast as FP32"


def _reached_phrase(rows: tuple[ModelSpeed, ...]) -> str:
    judged = [row for row in rows if row.reached is not None]
    if not judged:
        return ""
    reached = sum(bool(row.reached) for row in judged)
    told = f"At or above the published ratio: {reached} of {len(judged)}"
    if not any(row.engines for row in rows):
        return told
    best = sum(bool(row.best_reached) for row in judged)
    return f"{told} in Paddle, {best} in the fastest engine"


def _verdict_card(report: Mapping[str, Any]) -> Card:
    count = len(report["matrix"])
    unfinished = len(_named(report, "unfinished"))
    failed = count - len(_named(report, "passed")) - unfinished
    if unfinished and not failed:
        return Card(
            "Verdict", "Unfinished", f"{unfinished} of {text_format.plural(count, 'model')}"
        )
    if failed:
        return Card("Verdict", "Failed", f"{failed} of {text_format.plural(count, 'model')}", False)
    return Card("Verdict", "Passed", text_format.plural(count, "model"), True)


def _speed_card(rows: tuple[ModelSpeed, ...]) -> Card:
    title = "Speed, INT8 over FP32"
    if not rows:
        return Card(title, text_format.DASH, "not measured")
    low, high = _span(rows)
    value = low if low == high else f"{low[:-1]}{text_format.DASH}{high}"
    return Card(title, value, f"over {text_format.plural(len(rows), 'row')} of table II")


def _reached_card(rows: tuple[ModelSpeed, ...]) -> Card:
    title = "At or above published"
    judged = [row for row in rows if row.reached is not None]
    if not judged:
        return Card(title, text_format.DASH, "no published ratios")
    below = dict.fromkeys(row.model for row in judged if not row.reached)
    reached = sum(bool(row.reached) for row in judged)
    detail = f"below: {', '.join(below)}" if below else "every ratio"
    return Card(title, f"{reached} of {len(judged)}", detail, not below)


def _top1_card(report: Mapping[str, Any]) -> Card:
    title = "Top-1, INT8 less fake-quantized"
    changes = [
        (row.int8_top1 - row.fake_top1, row.model)
        for row in accuracy_rows(report)
        if not row.published and row.int8_top1 is not None and row.fake_top1 is not None
    ]
    if not changes:
        return Card(title, text_format.DASH, "not measured")
    worst, model = min(changes)
    return Card(title, f"{text_format.signed(worst)} points", f"at worst: {model}")
