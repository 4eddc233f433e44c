"""Table II and what belongs to it: throughput, latency, engines, and what disturbed them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from job import text_format
from job.report.cells import (
    CAP,
    INTERVAL,
    MEASURED,
    NONE,
    Cell,
    cap_text,
    engine_notes,
    grid_of,
    setting_cells,
)
from job.report.render.blocks import Column, Grid
from job.report.tables import (
    ENGINE_NAMES,
    INT8_ENGINE_NAMES,
    NO_CAP,
    EngineSpeed,
    LatencyRow,
    SpeedRow,
    caps,
    caps_differ,
    latency_rows,
    load_name,
    model_name,
    setting_name,
    speed_rows,
    with_cap,
)

# A larger share of the scores' range is more than the rounding of INT8's last steps.
MAX_SCORE_DIFFERENCE = 0.01


def throughput_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return table II, one for each ISA cap; an asterisk marks the unstable rows."""
    cells: list[Cell[SpeedRow]] = [*setting_cells(report), *MEASURED]
    grids = []
    for cap in caps(report):
        rows = _under(cap, speed_rows(report))
        notes = (_isa_note(rows), _engine_note(rows), *_instances_notes(rows))
        note = " ".join((*notes, *unstable_notes(report, cap)))
        grids.append(grid_of(with_cap(report, "Table II. Speed", cap), cells, rows, note))
    return tuple(grids)


def latency_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return table II, continued, one for each ISA cap: latency percentiles and peak memory."""
    cells: list[Cell[LatencyRow]] = [
        *setting_cells(report),
        (Column("Model"), lambda row: model_name(report, row.model)),
        (Column("p50 ms", True), lambda row: text_format.significant(row.p50_ms)),
        (Column("p90 ms", True), lambda row: _known(row.p90_ms)),
        (Column("p99 ms", True), lambda row: _known(row.p99_ms)),
        (Column("Peak memory", True), lambda row: text_format.size(row.peak_rss_bytes)),
    ]
    grids = []
    for cap in caps(report):
        rows = [row for row in latency_rows(report) if row.setting.isa_cap == cap]
        title = with_cap(report, "Table II, continued. Latency and memory", cap)
        grids.append(grid_of(title, cells, rows, _latency_note(report)))
    return tuple(grids)


def fp32_grid(report: Mapping[str, Any]) -> Grid:
    """Return FP32 in both engines, because ratios are over the faster one."""
    cells: list[Cell[SpeedRow]] = [
        *((CAP,) if caps_differ(report) else ()),
        *setting_cells(report),
        # A dash: the pilot measurement showed that this engine is far slower.
        (Column("Native images/s", True), lambda row: _known(row.fp32_native)),
        (Column("oneDNN images/s", True), lambda row: _known(row.fp32_onednn)),
        (Column("Used"), lambda row: ENGINE_NAMES[row.fp32_engine]),
        (Column("FP32 batches timed", True), lambda row: text_format.count(row.fp32_samples)),
        (Column("INT8 batches timed", True), lambda row: text_format.count(row.int8_samples)),
    ]
    return grid_of("FP32 engines and samples", cells, speed_rows(report))


def int8_engines_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return INT8 in every engine, one for each ISA cap; none if it ran in Paddle only."""
    cells: list[Cell[EngineSpeed]] = [
        *setting_cells(report),
        (Column("INT8 in"), lambda speed: INT8_ENGINE_NAMES[speed.engine]),
        (Column("images/s", True), lambda speed: text_format.significant(speed.images_per_second)),
        (Column("Ratio", True), lambda speed: text_format.judged_times(speed.ratio, speed.stable)),
        (INTERVAL, lambda speed: text_format.known_interval(speed.ratio_interval)),
        (Column("p50 ms", True), lambda speed: text_format.significant(speed.p50_ms)),
    ]
    grids = []
    for cap in caps(report):
        rows = [row for row in _under(cap, speed_rows(report)) if len(row.engines) > 1]
        title = with_cap(report, "Table II, continued. INT8 in other engines", cap)
        speeds = [speed for row in rows for speed in row.engines]
        if rows:
            grids.append(grid_of(title, cells, speeds, _fastest_note(report, rows, speeds)))
    return tuple(grids)


def _under(cap: str, rows: Iterable[SpeedRow]) -> Sequence[SpeedRow]:
    return [row for row in rows if row.setting.isa_cap == cap]


def unstable_notes(report: Mapping[str, Any], cap: str) -> tuple[str, ...]:
    """What disturbed which rows under an ISA cap and what to do; empty when all are stable."""
    rows = zip(speed_rows(report), report["benchmark"], strict=True)
    disturbed = [
        (row, entry["unstable_reasons"])
        for row, entry in rows
        if row.setting.isa_cap == cap and not row.stable
    ]
    if not disturbed:
        return ()
    found = (
        f"{load_name(report, row.setting)}: {' and '.join(reason['what'] for reason in reasons)}"
        for row, reasons in disturbed
    )
    advice = _once(reason["advice"] for _, reasons in disturbed for reason in reasons)
    return (f"{text_format.UNSTABLE} Unstable: {'; '.join(found)}.", *advice)


def score_notes(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Where INT8 answers otherwise under one ISA cap than under another."""
    first = report["benchmark"][0]["isa_cap"]
    return tuple(
        f"INT8's scores at {setting_name(report, row.setting)} differ from those under ISA cap "
        f"{cap_text(first)} by up to {100 * entry['score_difference']:.1f}% of their range."
        for row, entry in zip(speed_rows(report), report["benchmark"], strict=True)
        if (entry["score_difference"] or 0.0) > MAX_SCORE_DIFFERENCE
    )


def _isa_note(rows: Sequence[SpeedRow]) -> str:
    cap = rows[0].setting.isa_cap
    capped = "" if cap == NO_CAP else f"oneDNN was capped at {cap}. "
    return f"{capped}INT8 ran on {', '.join(_once(row.isa for row in rows))}."


def _engine_note(rows: Sequence[SpeedRow]) -> str:
    engines = sorted({ENGINE_NAMES[row.fp32_engine] for row in rows})
    return f"FP32 is the faster of native and oneDNN kernels (here {' and '.join(engines)})."


def _instances_notes(rows: Sequence[SpeedRow]) -> tuple[str, ...]:
    if all(row.setting.instances == 1 for row in rows):
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


def _fastest_note(
    report: Mapping[str, Any], rows: Sequence[SpeedRow], speeds: Sequence[EngineSpeed]
) -> str:
    names = _once(INT8_ENGINE_NAMES[row.fastest] for row in rows)
    if len(names) == 1:
        fastest = f"{names[0]} is the fastest throughout."
    else:
        each = (f"{INT8_ENGINE_NAMES[r.fastest]} at {load_name(report, r.setting)}" for r in rows)
        fastest = f"Fastest: {'; '.join(each)}."
    notes = [fastest, "Ratio: against the faster FP32 in Paddle, as in table II."]
    return " ".join((*notes, *engine_notes(rows, speeds)))


def _once(texts: Iterable[str]) -> Sequence[str]:
    return list(dict.fromkeys(texts))


def _known(value: float | None) -> str:
    return NONE if value is None else text_format.significant(value)
