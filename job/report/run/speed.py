"""Table II and what belongs to it: throughput, latency, engines, and what disturbed them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from job import text_format
from job.report.render.blocks import Column, Grid, figures, words
from job.report.run.tables import (
    ENGINE_NAMES,
    INT8_ENGINE_NAMES,
    NO_CAP,
    UNCAPPED_NOTE,
    EngineRow,
    MeasuredSetting,
    ThroughputRow,
    cap_name,
    caps,
    caps_differ,
    engine_rows,
    has_instances,
    latency_rows,
    load_name,
    model_name,
    scenario_name,
    setting_name,
    throughput_rows,
)

NONE = text_format.DASH
# A larger share of the scores' range is more than the rounding of INT8's last steps.
MAX_SCORE_DIFFERENCE = 0.01


def throughput_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Table II, one for each ISA cap: images/s and their ratio; an asterisk marks the unstable."""
    columns = (
        *_setting_columns(report),
        *figures("FP32 images/s", "INT8 images/s", "Ratio", "95% interval"),
    )
    grids = []
    for cap in caps(report):
        rows = [row for row in throughput_rows(report) if row.isa_cap == cap]
        cells = tuple(
            (
                *_setting_cells(report, row),
                text_format.significant(row.fp32),
                text_format.significant(row.int8),
                text_format.judged_times(row.ratio, row.stable),
                text_format.known_interval(row.ratio_interval),
            )
            for row in rows
        )
        notes = (_isa_note(rows), _engine_note(rows), *_instances_notes(rows))
        notes += unstable_notes(report, cap)
        title = _title(report, "Table II. Speed", cap)
        grids.append(Grid(title, columns, cells, " ".join(notes)))
    return tuple(grids)


def latency_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Table II, continued, one for each ISA cap: latency percentiles and peak memory."""
    columns = (
        *_setting_columns(report),
        *words("Model"),
        *figures("p50 ms", "p90 ms", "p99 ms", "Peak memory"),
    )
    grids = []
    for cap in caps(report):
        cells = tuple(
            (
                *_setting_cells(report, row),
                model_name(report, row.model),
                text_format.significant(row.p50_ms),
                _known(row.p90_ms),
                _known(row.p99_ms),
                text_format.size(row.peak_rss_bytes),
            )
            for row in latency_rows(report)
            if row.isa_cap == cap
        )
        title = _title(report, "Table II, continued. Latency and memory", cap)
        grids.append(Grid(title, columns, cells, _latency_note(report)))
    return tuple(grids)


def fp32_grid(report: Mapping[str, Any]) -> Grid:
    """FP32 in both engines: the ratio is against the faster one."""
    several = len(caps(report)) > 1
    rows = tuple(
        (
            *((_cap(row.isa_cap),) if several else ()),
            *_setting_cells(report, row),
            # The pilot showed that a dash is far slower.
            _known(row.fp32_native),
            _known(row.fp32_onednn),
            ENGINE_NAMES[row.fp32_engine],
            text_format.count(entry["fp32"]["samples"]),
            text_format.count(entry["int8"]["samples"]),
        )
        for row, entry in zip(throughput_rows(report), report["benchmark"], strict=True)
    )
    columns = (
        *(words("ISA cap") if several else ()),
        *_setting_columns(report),
        *figures("Native images/s", "oneDNN images/s"),
        *words("Used"),
        *figures("FP32 batches timed", "INT8 batches timed"),
    )
    return Grid("FP32 engines and samples", columns, rows)


def int8_engines_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """INT8 in every engine, one for each ISA cap; none where it ran in Paddle alone."""
    columns = (
        *_setting_columns(report),
        *words("INT8 in"),
        *figures("images/s", "Ratio", "95% interval", "p50 ms"),
    )
    grids = []
    for cap in caps(report):
        rows = [row for row in engine_rows(report) if row.isa_cap == cap]
        cells = tuple(
            (
                *_setting_cells(report, row),
                INT8_ENGINE_NAMES[row.engine],
                text_format.significant(row.images_per_second),
                text_format.judged_times(row.ratio, row.stable),
                text_format.known_interval(row.ratio_interval),
                text_format.significant(row.p50_ms),
            )
            for row in rows
        )
        title = _title(report, "Table II, continued. INT8 in other engines", cap)
        grids.append(Grid(title, columns, cells, _fastest_note(report, rows)))
    return tuple(grid for grid in grids if grid.rows)


def unstable_notes(report: Mapping[str, Any], cap: str) -> tuple[str, ...]:
    """What disturbed which rows under an ISA cap and what to do; empty when all are stable."""
    rows = zip(throughput_rows(report), report["benchmark"], strict=True)
    disturbed = [
        (row, entry["unstable_reasons"])
        for row, entry in rows
        if row.isa_cap == cap and not row.stable
    ]
    if not disturbed:
        return ()
    found = (
        f"{load_name(report, row)}: {' and '.join(reason['what'] for reason in reasons)}"
        for row, reasons in disturbed
    )
    advice = _once(reason["advice"] for _, reasons in disturbed for reason in reasons)
    return (f"{text_format.UNSTABLE} Unstable: {'; '.join(found)}.", *advice)


def notices(report: Mapping[str, Any]) -> tuple[str, ...]:
    """What must be known before table II is trusted."""
    rows = throughput_rows(report)
    unstable = sum(not row.stable for row in rows)
    which = "its only row" if len(rows) == 1 else f"{unstable} of its {len(rows)} rows"
    verb = "is" if unstable == 1 else "are"
    disturbed = f"Table II: {which} {verb} unstable, for the reasons told below it."
    return (*([disturbed] if unstable else []), *score_notes(report))


def score_notes(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Where INT8 answers otherwise under one ISA cap than under another."""
    first = report["benchmark"][0]["isa_cap"]
    return tuple(
        f"INT8's scores at {setting_name(report, row)} differ from those under ISA cap "
        f"{_cap(first)} by up to {100 * entry['score_difference']:.1f}% of their range."
        for row, entry in zip(throughput_rows(report), report["benchmark"], strict=True)
        if (entry["score_difference"] or 0.0) > MAX_SCORE_DIFFERENCE
    )


def _cap(cap: str) -> str:
    return "none" if cap == NO_CAP else cap


def _title(report: Mapping[str, Any], title: str, cap: str) -> str:
    if not caps_differ(report):
        return title
    return f"{title}, {cap_name(cap)}"


def _setting_columns(report: Mapping[str, Any]) -> tuple[Column, ...]:
    return figures("Batch") + (words("Scenario") if has_instances(report) else figures("Threads"))


def _setting_cells(report: Mapping[str, Any], row: MeasuredSetting) -> tuple[str, str]:
    return str(row.batch_size), scenario_name(row) if has_instances(report) else str(row.threads)


def _isa_note(rows: Sequence[ThroughputRow]) -> str:
    cap = rows[0].isa_cap
    capped = "" if cap == NO_CAP else f"oneDNN was capped at {cap}. "
    return f"{capped}INT8 ran on {', '.join(_once(row.isa for row in rows))}."


def _engine_note(rows: Sequence[ThroughputRow]) -> str:
    engines = sorted({ENGINE_NAMES[row.fp32_engine] for row in rows})
    return f"FP32 is the faster of native and oneDNN kernels (here {' and '.join(engines)})."


def _instances_notes(rows: Sequence[ThroughputRow]) -> tuple[str, ...]:
    if all(row.instances == 1 for row in rows):
        return ()
    told = "Instances have one thread and a core of their own each and run side by side; "
    return (f"{told}images/s are their sum.",)


def _latency_note(report: Mapping[str, Any]) -> str:
    costs = sorted(entry["harness_ms"] for entry in report["benchmark"])
    spread = " to ".join(_once(f"{cost:.2g}" for cost in (costs[0], costs[-1])))
    return (
        "Latency of one batch, by nearest rank; p90 takes 10 batches, p99 takes 100. "
        "Peak memory: resident set of the model's process. "
        f"A model that does nothing takes {spread} ms a batch when it is measured like these."
    )


def _fastest_note(report: Mapping[str, Any], rows: Sequence[EngineRow]) -> str:
    fastest = [row for row in rows if row.fastest]
    names = _once(INT8_ENGINE_NAMES[row.engine] for row in fastest)
    if len(names) == 1:
        told = f"{names[0]} is the fastest throughout."
    else:
        each = (f"{INT8_ENGINE_NAMES[r.engine]} at {load_name(report, r)}" for r in fastest)
        told = f"Fastest: {'; '.join(each)}."
    told = f"{told} Ratio: against the faster FP32 in Paddle, as in table II."
    if any(row.engine == "onnxruntime" and row.isa_cap != NO_CAP for row in rows):
        told = f"{told} {UNCAPPED_NOTE}"
    if all(row.stable for row in rows):
        return told
    return f"{told} {text_format.UNSTABLE_RATIO}"


def _once(texts: Iterable[str]) -> Sequence[str]:
    return list(dict.fromkeys(texts))


def _known(value: float | None) -> str:
    return NONE if value is None else text_format.significant(value)
