"""Summary of a report: headline, notices and four figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from job import text_format
from job.report.accuracy_rows import matrix_accuracy_rows
from job.report.cells import gate_limit, gate_value
from job.report.render.page import Card, Summary
from job.report.run.recommend import recommendations, slower_rows
from job.report.run.speed import score_notes
from job.report.tables import (
    SpeedRow,
    caps_differ,
    has_instances,
    is_matrix,
    setting_name,
    speed_rows,
)
from job.report.views import chance_notice, view_of
from job.tasks.low_agreement import warnings_of

MAX_LISTED = 3
# The start of the note of a run that was forced with --allow-slow-isa.
NOT_COMPARABLE = "not comparable:"


def summarize(report: Mapping[str, Any]) -> Summary:
    """Condense a valid report, of a run or of a matrix."""
    rows = speed_rows(report)
    matrix = is_matrix(report)
    return Summary(
        passed=report["status"] == "passed",
        headline=_matrix_headline(report, rows) if matrix else _run_headline(report, rows),
        notices=(
            *(() if matrix else _comparable_notices(report)),
            *(() if matrix else recommendations(report)),
            *(() if matrix or report["accuracy"] is None else _chance_notices(report)),
            *_unstable_notices(rows),
            *(() if matrix else _agreement_notices(report)),
            *(() if matrix else score_notes(report)),
        ),
        notes=_notes(report),
        cards=_matrix_cards(report, rows) if matrix else _run_cards(report, rows),
    )


def _notes(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the notes of a report, without the note that a notice replaces."""
    return tuple(
        str(note)
        for note in report["notes"]
        if is_matrix(report) or report["comparable"] or not note.startswith(NOT_COMPARABLE)
    )


def _comparable_notices(report: Mapping[str, Any]) -> tuple[str, ...]:
    if report["comparable"]:
        return ()
    return (
        "Not comparable: this CPU lacks AVX512_VNNI and the run was forced with --allow-slow-isa. "
        "Without AVX512_VNNI, INT8 sums may saturate and the speeds do not apply to other CPUs.",
    )


def _chance_notices(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a warning if FP32 is no better than chance."""
    notice = chance_notice(report)
    return (notice,) if notice else ()


def _agreement_notices(report: Mapping[str, Any]) -> tuple[str, ...]:
    strategy = report["manifest"]["quantize"]["strategy"]
    warnings = warnings_of(report["audit"]["agreement"], strategy)
    return tuple(f"{text[0].upper()}{text[1:]}." for text in warnings)


def _unstable_notices(rows: Sequence[SpeedRow]) -> tuple[str, ...]:
    unstable = sum(not row.stable for row in rows)
    if not unstable:
        return ()
    which = "the only row" if len(rows) == 1 else f"{unstable} of {len(rows)} rows"
    verb = "is" if unstable == 1 else "are"
    mark = text_format.UNSTABLE
    return (f"Table II: {which} {verb} unstable (marked {mark}); see the note below the table.",)


def _span(rows: Sequence[SpeedRow]) -> tuple[str, str]:
    """Return the lowest and the highest ratio, each with an asterisk if it is unstable."""
    lowest, highest = (find(rows, key=lambda row: row.ratio) for find in (min, max))
    return _ratio_text(lowest), _ratio_text(highest)


def _ratio_text(row: SpeedRow) -> str:
    return text_format.judged_times(row.ratio, row.stable)


def _span_text(rows: Sequence[SpeedRow]) -> str:
    low, high = _span(rows)
    return low if low == high else f"{low} to {high}"


def _speed_card(rows: Sequence[SpeedRow], detail: str) -> Card:
    title = "Speedup, INT8 over FP32"
    if not rows:
        return Card(title, text_format.DASH, "not measured")
    low, high = _span(rows)
    value = low if low == high else f"{low.replace('×', '')}{text_format.DASH}{high}"
    return Card(title, value, detail, warning=bool(slower_rows(rows)))


def _run_headline(report: Mapping[str, Any], rows: Sequence[SpeedRow]) -> str:
    phrases = (_speed_phrase(report, rows), _quality_phrase(report), f"and {_size_phrase(report)}")
    return f"{_gates_phrase(report)} {', '.join(phrase for phrase in phrases if phrase)}."


def _gates_phrase(report: Mapping[str, Any]) -> str:
    gates = report["gates"]
    failed = [gate for gate in gates if gate["passed"] is False]
    if not failed:
        unjudged = [gate["name"] for gate in gates if gate["passed"] is None]
        if unjudged and len(unjudged) == len(gates):
            return f"Not judged ({', '.join(unjudged)}):"
        if unjudged:
            return f"Passed, but not judged: {', '.join(unjudged)}."
        return "Passed:" if gates else "Done (no gates set):"
    misses = "; ".join(
        f"{gate['name']} is {gate_value(gate['value'], gate['limit'])} "
        f"(required: {gate_limit(gate['name'], gate['limit'])})"
        for gate in failed
    )
    return f"Gate failed: {misses}."


def _speed_phrase(report: Mapping[str, Any], rows: Sequence[SpeedRow]) -> str:
    slower = slower_rows(rows)
    if slower and len(slower) == len(rows):
        return _slower_phrase(report, rows)
    if len(rows) > MAX_LISTED:
        some = f" (slower at {len(slower)} of them)" if slower else ""
        return f"INT8 is {_span_text(rows)} as fast as FP32 {_many_settings(report, rows)}{some}"
    first, *others = [(_ratio_text(row), setting_name(report, row.setting)) for row in rows]
    ratios = [f"{first[0]} as fast as FP32 at {first[1]}"]
    ratios += [f"{ratio} at {setting}" for ratio, setting in others]
    listed = ratios[0] if len(ratios) == 1 else f"{', '.join(ratios[:-1])} and {ratios[-1]}"
    if not slower:
        return f"INT8 is {listed}"
    where = " and ".join(setting_name(report, row.setting) for row in slower)
    return f"INT8 is {listed} (slower at {where})"


def _slower_phrase(report: Mapping[str, Any], rows: Sequence[SpeedRow]) -> str:
    """Return the phrase for INT8 that is slower than FP32 at every setting."""
    if len(rows) > MAX_LISTED:
        settings = _many_settings(report, rows)
        return f"INT8 is slower: {_span_text(rows)} the images/s of FP32 {settings}"
    each = (
        f"{_ratio_text(row)} the images/s of FP32 at {setting_name(report, row.setting)}"
        for row in rows
    )
    return f"INT8 is slower: {', '.join(each)}"


def _many_settings(report: Mapping[str, Any], rows: Sequence[SpeedRow]) -> str:
    plain = not (caps_differ(report) or has_instances(report))
    kind = "combinations of batch size and threads" if plain else "settings"
    return f"across {len(rows)} {kind}"


def _quality_phrase(report: Mapping[str, Any]) -> str:
    accuracy, measure = report["accuracy"], view_of(report).primary
    if accuracy is None:
        return ""
    if measure is None:
        decibels = accuracy["closeness"]["int8"]["signal_to_noise_db"]
        return f"its outputs agree with FP32 at {decibels:.1f} dB"
    drop = accuracy["paired"][f"{measure.key}_drop"]
    fp32, int8 = (accuracy[model][measure.key] for model in ("fp32", "int8"))
    span = f"({fp32:.2f}% to {int8:.2f}%)"
    if f"{abs(drop):.2f}" == "0.00":
        return f"keeps its {measure.text} {span}"
    return f"{'loses' if drop > 0 else 'gains'} {abs(drop):.2f} points of {measure.text} {span}"


def _size_ratio(report: Mapping[str, Any]) -> float:
    return float(report["models"]["fp32"]["bytes"] / report["models"]["int8"]["bytes"])


def _size_phrase(report: Mapping[str, Any]) -> str:
    ratio = _size_ratio(report)
    fp32, int8 = (text_format.size(report["models"][model]["bytes"]) for model in ("fp32", "int8"))
    compared = "no smaller" if text_format.times(ratio) == "1.00×" else _smaller(ratio)
    return f"takes {int8} instead of {fp32} on disk ({compared})"


def _smaller(ratio: float) -> str:
    if ratio >= 1:
        return f"{text_format.times(ratio)} smaller"
    return f"{text_format.times(1 / ratio)} larger"


def _run_cards(report: Mapping[str, Any], rows: Sequence[SpeedRow]) -> tuple[Card, ...]:
    if len(rows) > MAX_LISTED:
        detail = _many_settings(report, rows)
    else:
        detail = "\n".join(
            f"{setting_name(report, row.setting)}: {_ratio_text(row)}" for row in rows
        )
    fp32, int8 = (text_format.size(report["models"][model]["bytes"]) for model in ("fp32", "int8"))
    size = Card("Size on disk", _smaller(_size_ratio(report)), f"INT8 {int8}, FP32 {fp32}")
    return (
        _gates_card(report),
        _speed_card(rows, detail),
        _quality_card(report),
        _agreement_card(report),
        size,
    )


def _agreement_card(report: Mapping[str, Any]) -> Card:
    agreement = report["audit"]["agreement"]
    int8, fake = agreement["int8_fake"], agreement["fake_fp32"]
    share = "" if fake["same_top1"] is None else f", same class for {fake['same_top1']:.0f}%"
    return Card(
        "INT8 against fake-quantized",
        f"{int8['signal_to_noise_db']:.1f} dB",
        f"{_same_class(int8, agreement['images'])}"
        f"fake-quantized against FP32: {fake['signal_to_noise_db']:.1f} dB{share}",
    )


def _same_class(agreement: Mapping[str, Any], images: int) -> str:
    if agreement["same_top1"] is None:
        return f"{text_format.plural(images, 'image')}\n"
    return f"same class for {agreement['same_top1']:.0f}% of {images} images\n"


def _gates_card(report: Mapping[str, Any]) -> Card:
    gates = report["gates"]
    if not gates:
        return Card("Verdict", "Done", "no gates set")
    verdicts = [gate["passed"] for gate in gates]
    return _verdict_card(verdicts.count(False), len(gates), "gate", verdicts.count(None))


def _verdict_card(failed: int, count: int, noun: str, unjudged: int = 0) -> Card:
    parts = text_format.plural(count, noun)
    if failed:
        return Card("Verdict", "Failed", f"{failed} of {parts}", False)
    if unjudged:
        verdict = "Not judged" if unjudged == count else "Passed in part"
        return Card("Verdict", verdict, f"{unjudged} of {parts} not judged")
    return Card("Verdict", "Passed", parts, True)


def _quality_card(report: Mapping[str, Any]) -> Card:
    accuracy, measure = report["accuracy"], view_of(report).primary
    title = "INT8 against FP32" if measure is None else f"{measure.title}, INT8 minus FP32"
    if accuracy is None:
        return Card(title, text_format.DASH, "not measured")
    if measure is None:
        decibels = accuracy["closeness"]["int8"]["signal_to_noise_db"]
        images = text_format.plural(accuracy["images"], "test image")
        return Card(title, f"{decibels:.1f} dB", f"signal-to-noise ratio of the outputs\n{images}")
    drop = accuracy["paired"][f"{measure.key}_drop"]
    bounds = accuracy["paired"][f"{measure.key}_drop_interval"]
    detail = "too few images for an interval"
    if bounds is not None:
        detail = f"95% interval: {text_format.signed_interval(-bounds[1], -bounds[0])}"
    loses = bounds is not None and bounds[0] > 0
    return Card(title, f"{text_format.signed(-drop)} points", detail, warning=loses)


def _named(report: Mapping[str, Any], status: str) -> list[str]:
    return [entry["model"] for entry in report["matrix"] if entry["status"] == status]


def _matrix_headline(report: Mapping[str, Any], rows: Sequence[SpeedRow]) -> str:
    sentences = [_models_phrase(report)]
    if rows:
        sentences.append(f"INT8 is {_span_text(rows)} as fast as FP32.")
    judged = [row for row in rows if row.reached is not None]
    if judged:
        reached = sum(bool(row.reached) for row in judged)
        phrase = f"{reached} of {len(judged)} rows of table II reach the published speedup"
        if any(len(row.engines) > 1 for row in rows):
            best = sum(bool(row.best_reached) for row in judged)
            phrase = f"{phrase} with Paddle, {best} with the fastest engine"
        sentences.append(f"{phrase}.")
    return " ".join(sentences)


def _models_phrase(report: Mapping[str, Any]) -> str:
    count = text_format.plural(len(report["matrix"]), "model")
    kinds = (
        ("failed", "failed"),
        ("gate failed", "gate_failed"),
        ("no result yet", "unfinished"),
    )
    phrases = [
        f"{phrase}: {', '.join(_named(report, status))}"
        for phrase, status in kinds
        if _named(report, status)
    ]
    if phrases:
        return f"{count}; {'; '.join(phrases)}."
    unjudged = [
        entry["model"]
        for entry in report["matrix"]
        if any(gate["passed"] is None for gate in entry["gates"] or ())
    ]
    if unjudged:
        return f"{count}; no gate failed, but gates were not judged: {', '.join(unjudged)}."
    gated = any(entry["gates"] for entry in report["matrix"])
    return f"{count}, {'all passed' if gated else 'all done'}."


def _matrix_cards(report: Mapping[str, Any], rows: Sequence[SpeedRow]) -> tuple[Card, ...]:
    count, unfinished = len(report["matrix"]), len(_named(report, "unfinished"))
    failed = count - len(_named(report, "passed")) - unfinished
    verdict = _verdict_card(failed, count, "model")
    if unfinished and not failed:
        detail = f"{unfinished} of {text_format.plural(count, 'model')}"
        verdict = Card("Verdict", "Unfinished", detail)
    speed = _speed_card(rows, f"across {text_format.plural(len(rows), 'row')} of table II")
    return (verdict, speed, _reached_card(rows), _matrix_top1_card(report))


def _reached_card(rows: Sequence[SpeedRow]) -> Card:
    title = "Published speedup reached"
    judged = [row for row in rows if row.reached is not None]
    if not judged:
        return Card(title, text_format.DASH, "no published speedups")
    below = dict.fromkeys(row.model for row in judged if not row.reached)
    reached = sum(bool(row.reached) for row in judged)
    detail = f"missed by {', '.join(below)}" if below else "in every row"
    return Card(title, f"{reached} of {len(judged)}", detail, not below)


def _matrix_top1_card(report: Mapping[str, Any]) -> Card:
    rows = [row for row in matrix_accuracy_rows(report) if not row.published]
    names = dict.fromkeys(row.view.measures[0].title for row in rows)
    title = f"{' or '.join(names) or 'Accuracy'}, INT8 minus fake-quantized"
    changes = [
        (row.int8[0] - row.fake[0], row.model)
        for row in rows
        if row.int8[0] is not None and row.fake[0] is not None
    ]
    if not changes:
        return Card(title, text_format.DASH, "not measured")
    worst, model = min(changes)
    return Card(title, f"{text_format.signed(worst)} points", f"worst model: {model}")
