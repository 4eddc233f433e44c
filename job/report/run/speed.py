"""Table II of a run: throughput, latency, engines, and the reasons of unstable rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from job import text_format
from job.report.cells import (
    CAP,
    INTERVAL,
    MEASURED,
    NONE,
    OVER_FASTEST_FP32,
    OVER_FASTEST_NOTE,
    SPEEDUP_NOTE,
    Cell,
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
    cap_name,
    caps,
    caps_differ,
    latency_rows,
    load_name,
    model_name,
    setting_name,
    speed_rows,
    with_cap,
)

# Rounding in the last INT8 layers changes scores by less than this share of their range.
MAX_SCORE_DIFFERENCE = 0.01
FASTER_NOTE = "Faster: the engine that table II compares INT8 with."
SKIPPED_NOTE = f"{NONE}: not measured, because a short trial showed that this engine is far slower."


ENGINE_FP32: Cell[SpeedRow] = (
    Column("OpenVINO in Paddle\nimages/s", True),
    lambda row: _known(row.fp32_paddle_openvino),
)


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
    """Return FP32 with native and oneDNN kernels, because speedups are over the faster of them."""
    has_engine = any(row.fp32_paddle_openvino is not None for row in speed_rows(report))
    cells: list[Cell[SpeedRow]] = [
        *((CAP,) if caps_differ(report) else ()),
        *setting_cells(report),
        (Column("Native\nimages/s", True), lambda row: _known(row.fp32_native)),
        (Column("oneDNN\nimages/s", True), lambda row: _known(row.fp32_onednn)),
        *([ENGINE_FP32] if has_engine else []),
        (Column("Faster"), lambda row: ENGINE_NAMES[row.fp32_engine]),
        (Column("FP32 batches\ntimed", True), lambda row: text_format.count(row.fp32_samples)),
        (Column("INT8 batches\ntimed", True), lambda row: text_format.count(row.int8_samples)),
    ]
    rows = speed_rows(report)
    skipped = any(row.fp32_native is None or row.fp32_onednn is None for row in rows)
    note = f"{FASTER_NOTE} {SKIPPED_NOTE}" if skipped else FASTER_NOTE
    return grid_of("FP32 by engine, and batches timed", cells, rows, note)


def int8_engines_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return INT8 in every engine, one for each ISA cap; none if it ran in Paddle only."""
    cells: list[Cell[EngineSpeed]] = [
        *setting_cells(report),
        (Column("Engine"), lambda speed: INT8_ENGINE_NAMES[speed.engine]),
        (Column("images/s", True), lambda speed: text_format.significant(speed.images_per_second)),
        (
            Column("Speedup", True),
            lambda speed: text_format.judged_times(speed.ratio, speed.stable),
        ),
        (INTERVAL, lambda speed: text_format.known_interval(speed.ratio_interval)),
        (OVER_FASTEST_FP32, lambda speed: text_format.known_times(speed.fastest_fp32_ratio)),
        (Column("p50 ms", True), lambda speed: text_format.significant(speed.p50_ms)),
    ]
    grids = []
    for cap in caps(report):
        rows = [row for row in _under(cap, speed_rows(report)) if len(row.engines) > 1]
        title = with_cap(report, "Table II, continued. INT8 by engine", cap)
        speeds = [speed for row in rows for speed in row.engines]
        if rows:
            grids.append(grid_of(title, cells, speeds, _fastest_note(report, rows, speeds)))
    return tuple(grids)


def _under(cap: str, rows: Iterable[SpeedRow]) -> Sequence[SpeedRow]:
    return [row for row in rows if row.setting.isa_cap == cap]


def unstable_notes(report: Mapping[str, Any], cap: str) -> tuple[str, ...]:
    """Return the reasons of unstable rows under an ISA cap, and advice; empty if all are stable."""
    rows = zip(speed_rows(report), report["benchmark"], strict=True)
    unstable = [
        (row, entry["unstable_reasons"])
        for row, entry in rows
        if row.setting.isa_cap == cap and not row.stable
    ]
    if not unstable:
        return ()
    causes = (
        f"{load_name(report, row.setting)}: {' and '.join(reason['what'] for reason in reasons)}"
        for row, reasons in unstable
    )
    advice = _once(reason["advice"] for _, reasons in unstable for reason in reasons)
    return (f"{text_format.UNSTABLE} Unstable: {'; '.join(causes)}.", *advice)


def score_notes(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings whose INT8 scores differ from the scores under the first ISA cap."""
    first = report["benchmark"][0]["isa_cap"]
    return tuple(
        f"INT8 scores at {setting_name(report, row.setting)} differ from the INT8 scores with "
        f"{cap_name(first)} by up to {100 * entry['score_difference']:.1f}% of their range."
        for row, entry in zip(speed_rows(report), report["benchmark"], strict=True)
        if (entry["score_difference"] or 0.0) > MAX_SCORE_DIFFERENCE
    )


def _isa_note(rows: Sequence[SpeedRow]) -> str:
    cap = rows[0].setting.isa_cap
    capped = "" if cap == NO_CAP else f"oneDNN was limited to {cap}. "
    return f"{capped}Instruction set of INT8: {', '.join(_once(row.isa for row in rows))}."


def _engine_note(rows: Sequence[SpeedRow]) -> str:
    engines = sorted({ENGINE_NAMES[row.fp32_engine] for row in rows})
    by_row = ", depending on the row" if len(engines) > 1 else ""
    return (
        "FP32 is the faster of Paddle's native kernels and oneDNN "
        f"(here: {' or '.join(engines)}{by_row}). {SPEEDUP_NOTE}"
    )


def _instances_notes(rows: Sequence[SpeedRow]) -> tuple[str, ...]:
    if all(row.setting.instances == 1 for row in rows):
        return ()
    return (
        "Instances are processes that run in parallel, each with one thread on its own core. "
        "Images/s are the sum over all instances.",
    )


def _latency_note(report: Mapping[str, Any]) -> str:
    costs = sorted(entry["harness_ms"] for entry in report["benchmark"])
    spread = " to ".join(_once(f"{cost:.2g}" for cost in (costs[0], costs[-1])))
    return (
        "Latency of one batch, as nearest-rank percentiles. p90 needs 10 timed batches, p99 needs "
        "100. Peak memory: resident set size of the model's process. The measurement itself takes "
        f"{spread} ms per batch, timed with a model that computes nothing."
    )


def _fastest_note(
    report: Mapping[str, Any], rows: Sequence[SpeedRow], speeds: Sequence[EngineSpeed]
) -> str:
    names = _once(INT8_ENGINE_NAMES[row.fastest] for row in rows)
    if len(names) == 1:
        fastest = f"{names[0]} is the fastest engine at every setting."
    else:
        each = (f"{INT8_ENGINE_NAMES[r.fastest]} at {load_name(report, r.setting)}" for r in rows)
        fastest = f"Fastest engine: {'; '.join(each)}."
    notes = [
        fastest,
        f"Speedup: over FP32 in Paddle, as in table II. {OVER_FASTEST_NOTE}",
    ]
    notes += _checked_notes(report, rows[0].setting.isa_cap)
    return " ".join((*notes, *engine_notes(rows, speeds)))


def _checked_notes(report: Mapping[str, Any], cap: str) -> Iterable[str]:
    """Return the agreement with the fake-quantized model of the engines in which it is known.

    The agreement and the kernels were determined without a cap.
    """
    when = "" if cap == NO_CAP else " without a cap"
    for name, model in report["models"].items():
        if "agreement" in model:
            decibels = model["agreement"]["signal_to_noise_db"]
            kernels = f"; its INT8 kernels use {model['isa']}" if "isa" in model else ""
            yield (
                f"{INT8_ENGINE_NAMES[name]} agrees with the fake-quantized model at "
                f"{decibels:.1f} dB{kernels}{when}."
            )


def _once(texts: Iterable[str]) -> Sequence[str]:
    return list(dict.fromkeys(texts))


def _known(value: float | None) -> str:
    return NONE if value is None else text_format.significant(value)
