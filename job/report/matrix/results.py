"""Tables over all models of a matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from job import text_format
from job.report.accuracy_rows import MatrixAccuracyRow, matrix_accuracy_rows
from job.report.cells import (
    CAP,
    INTERVAL,
    MEASURED,
    NONE,
    OVER_FASTEST_FP32,
    OVER_FASTEST_NOTE,
    SPEEDUP_NOTE,
    UNSTABLE_NOTE,
    Cell,
    cap_text,
    engine_notes,
    grid_of,
    setting_cells,
)
from job.report.render.blocks import Column, Grid, figures, words
from job.report.run.breakdown import advice_of
from job.report.tables import (
    INT8_ENGINE_NAMES,
    SpeedRow,
    cap_name,
    caps,
    setting_name,
    settings,
    speed_rows,
    with_cap,
)
from job.report.views import Measure

YES_NO = {True: "yes", False: "no", None: ""}
PUBLISHED_NOTE = (
    "Published images/s were measured on another machine. Reached: whether the speedup is at least "
    "the published speedup."
)
ENGINES_NOTE = (
    "All engines use the same weights and scales. Speedup: INT8 in the fastest engine over FP32 in "
    "Paddle, as in table II."
)
MODEL: Cell[SpeedRow] = (Column("Model"), lambda row: row.model)
FASTEST: Cell[SpeedRow] = (Column("Fastest"), lambda row: INT8_ENGINE_NAMES[row.fastest])
REACHED = Column("Reached")
NAME = words("Model", "Source")


def accuracy_grid(report: Mapping[str, Any]) -> Grid:
    """Return table I: the fake-quantized model and INT8, measured and published."""
    return _joined(report, "Table I. Accuracy in percent", _by_measure(report))


def _by_measure(report: Mapping[str, Any]) -> dict[Measure, dict[str, tuple[str, ...]]]:
    """Return for each measure the cells of each row of table I; the models may differ in task."""
    rows = matrix_accuracy_rows(report)
    found: dict[Measure, dict[str, tuple[str, ...]]] = {}
    for row in rows:
        for place, measure in enumerate(row.view.measures):
            pair = _pair(row.fake[place], row.int8[place])
            cells = (_percent(row.fp32), *pair) if place == 0 else pair
            found.setdefault(measure, {})[_key(row)] = cells
    return found


def _columns(measure: Measure, width: int) -> tuple[Column, ...]:
    name = measure.short.replace(", ", ",\n")
    titles = (f"FP32\n{name}", f"Fake\n{name}", f"INT8\n{name}", "Change")
    return figures(*titles[-width:])


def _joined(
    report: Mapping[str, Any],
    title: str,
    by_measure: Mapping[Measure, Mapping[str, tuple[str, ...]]],
    *,
    note: bool = True,
) -> Grid:
    columns, widths = NAME, {}
    for measure, cells in by_measure.items():
        widths[measure] = len(next(iter(cells.values())))
        columns += _columns(measure, widths[measure])
    rows = tuple(
        (
            *_name(row),
            *(
                cell
                for measure, cells in by_measure.items()
                for cell in cells.get(_key(row), (NONE,) * widths[measure])
            ),
        )
        for row in matrix_accuracy_rows(report)
    )
    return Grid(title, columns, rows, _accuracy_note(report) if note else "")


def _key(row: MatrixAccuracyRow) -> str:
    return f"{row.model}/{row.published}"


def accuracy_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return table I as one table for each measure, for narrow screens."""
    found = list(_by_measure(report).items())
    grids = []
    for number, (measure, cells) in enumerate(found):
        title = f"Table I{', continued' if number else ''}. {_capital(measure.text)} in percent"
        last = number == len(found) - 1
        grids.append(_joined(report, title, {measure: cells}, note=last))
    return tuple(grids)


def _capital(text: str) -> str:
    return text if text.startswith("mAP") else text[0].upper() + text[1:]


def _name(row: MatrixAccuracyRow) -> tuple[str, ...]:
    return row.model, "published" if row.published else "measured"


def _pair(fake: float | None, int8: float | None) -> tuple[str, str, str]:
    change = NONE if fake is None or int8 is None else text_format.signed(int8 - fake)
    return _percent(fake), _percent(int8), change


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _accuracy_note(report: Mapping[str, Any]) -> str:
    note = (
        "Fake: the fake-quantized model. Change: INT8 minus fake-quantized, in percentage points."
    )
    done = [entry for entry in report["matrix"] if entry["report"] is not None]
    without = [entry["model"] for entry in done if entry["accuracy"] is None]
    if not without:
        return note
    models = "" if len(without) == len(done) else f" of {', '.join(without)}"
    return f"{note} Accuracy{models} was not measured, because the images are synthetic."


def speed_grid(report: Mapping[str, Any]) -> Grid:
    """Return table II with all settings. Published figures are in separate columns."""
    rows = speed_rows(report)
    cells: list[Cell[SpeedRow]] = [MODEL, *setting_cells(report), *MEASURED, CAP]
    if _any_published(rows):
        cells += [
            (Column("Published\nFP32", True), lambda row: _published(row.published_fp32)),
            (Column("Published\nINT8", True), lambda row: _published(row.published_int8)),
            (Column("Published\nspeedup", True), _published_ratio),
            (REACHED, lambda row: YES_NO[row.reached]),
        ]
    return grid_of("Table II. Speed", cells, rows, _speed_note(rows))


def speed_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return one table II per setting, for narrow screens. Published figures have separate rows."""
    rows = speed_rows(report)
    published = _any_published(rows)
    columns = (
        Column("Model"),
        *words(*["Source"] * published),
        *(column for column, _ in MEASURED),
    )
    columns += (REACHED,) * published
    grids: list[Grid] = []
    for setting in settings(report):
        texts: list[tuple[str, ...]] = []
        for row in (row for row in rows if row.setting == setting):
            measured = [text(row) for _, text in MEASURED]
            if not published:
                texts.append((row.model, *measured))
                continue
            texts.append((row.model, "measured", *measured, YES_NO[row.reached]))
            if row.published_fp32 is not None or row.published_int8 is not None:
                speeds = _published(row.published_fp32), _published(row.published_int8)
                texts.append((row.model, "published", _published_ratio(row), "", *speeds, ""))
        title = f"Table II. Speed at {setting_name(report, setting)}"
        grids.append(Grid(title, columns, tuple(texts)))
    return _noted(grids, _speed_note(rows))


def _any_published(rows: Sequence[SpeedRow]) -> bool:
    return any(row.published_fp32 or row.published_int8 for row in rows)


def _published(value: float | None) -> str:
    """Return a published figure with the digits that it was published with."""
    return NONE if value is None else f"{value:,.9g}"


def _published_ratio(row: SpeedRow) -> str:
    return NONE if row.published_ratio is None else text_format.times(row.published_ratio)


def _speed_note(rows: Sequence[SpeedRow]) -> str:
    used = dict.fromkeys(f"{row.isa} ({cap_name(row.setting.isa_cap)})" for row in rows)
    notes = [f"Instruction set of INT8: {', '.join(used)}.", SPEEDUP_NOTE]
    if _any_published(rows):
        notes.append(PUBLISHED_NOTE)
    if not all(row.stable for row in rows):
        notes.append(f"{UNSTABLE_NOTE} The model's own report gives the reason.")
    return " ".join(notes)


def engines_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return INT8 in each engine, one for each ISA cap; none if Paddle is the only engine."""
    rows = speed_rows(report)
    names = dict.fromkeys(speed.engine for row in rows for speed in row.engines)
    if len(names) < 2:
        return ()
    rates = [(Column(INT8_ENGINE_NAMES[name], True), partial(_rate_in, name)) for name in names]
    over_fastest: Cell[SpeedRow] = (
        OVER_FASTEST_FP32,
        lambda row: text_format.known_times(row.best.fastest_fp32_ratio),
    )
    # Reports of older versions lack the ratio.
    is_known = any(row.best.fastest_fp32_ratio is not None for row in rows)
    cells: list[Cell[SpeedRow]] = [
        MODEL,
        *setting_cells(report),
        *rates,
        FASTEST,
        *_best_cells(rows),
        *([over_fastest] if is_known else []),
    ]
    title = "Table II, continued. INT8 images/s by engine"
    grids = [
        grid_of(with_cap(report, title, cap), cells, [r for r in rows if r.setting.isa_cap == cap])
        for cap in caps(report)
    ]
    note = _engines_note(rows)
    return _noted(grids, f"{note} {OVER_FASTEST_NOTE}" if is_known else note)


def fastest_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return INT8 in the fastest engine, one for each setting, for narrow screens."""
    rows = speed_rows(report)
    if all(len(row.engines) == 1 for row in rows):
        return ()
    rate = (Column("images/s", True), lambda row: _rate_in(row.fastest, row))
    cells: list[Cell[SpeedRow]] = [MODEL, FASTEST, rate, *_best_cells(rows)]
    title = "Table II, continued. Fastest engine at"
    grids = [
        grid_of(f"{title} {setting_name(report, s)}", cells, [r for r in rows if r.setting == s])
        for s in settings(report)
    ]
    return _noted(grids, _engines_note(rows))


def _noted(grids: Sequence[Grid], note: str) -> tuple[Grid, ...]:
    """Return tables with a note below the last."""
    return (*grids[:-1], *(replace(grid, note=note) for grid in grids[-1:]))


def _best_cells(rows: Sequence[SpeedRow]) -> list[Cell[SpeedRow]]:
    cells: list[Cell[SpeedRow]] = [
        (
            Column("Speedup", True),
            lambda row: text_format.judged_times(row.best.ratio, row.best.stable),
        ),
        (INTERVAL, lambda row: text_format.known_interval(row.best.ratio_interval)),
    ]
    reached = (REACHED, lambda row: YES_NO[row.best_reached])
    return [*cells, reached] if _any_published(rows) else cells


def _engines_note(rows: Sequence[SpeedRow]) -> str:
    return " ".join((ENGINES_NOTE, *engine_notes(rows, [row.best for row in rows])))


def _rate_in(engine: str, row: SpeedRow) -> str:
    """Return INT8 images/s in an engine."""
    speeds = {speed.engine: speed.images_per_second for speed in row.engines}
    return text_format.significant(speeds[engine]) if engine in speeds else NONE


def models_grid(report: Mapping[str, Any]) -> Grid:
    """Return status, ops, sizes and report of each model."""
    texts = tuple(_model_cells(entry) for entry in report["matrix"])
    columns = (
        *words("Model", "Status"),
        *figures("Ops\nin INT8", "Left in\nFP32", "FP32 size", "INT8 size"),
        *words("Report"),
    )
    return Grid("Models", columns, texts)


def _model_cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
    status = entry["status"].replace("_", " ")
    if entry["audit"] is None:
        return (entry["model"], status, NONE, NONE, NONE, NONE, NONE)
    return (
        entry["model"],
        status,
        text_format.count(entry["audit"]["int8_ops"]),
        text_format.count(len(entry["audit"]["left_in_fp32"])),
        text_format.size(entry["models"]["fp32"]["bytes"]),
        text_format.size(entry["models"]["int8"]["bytes"]),
        entry["report"],
    )


def failures_grid(report: Mapping[str, Any]) -> Grid:
    """Return the models that failed or have no result yet, with the error of each."""
    texts = tuple(
        (entry["model"], str(entry["error"]["exit_code"]), entry["error"]["message"])
        for entry in report["matrix"]
        if entry["error"] is not None
    )
    columns = (*words("Model"), *figures("Exit code"), *words("Error"))
    return Grid("Models without a result", columns, texts)


def below_published_grid(report: Mapping[str, Any]) -> Grid:
    """Return the advice from the breakdown of each model below its published speedup."""
    below = {
        (row.model, row.setting.isa_cap, row.setting.batch_size)
        for row in speed_rows(report)
        if row.reached is False
    }
    texts = tuple(
        (entry["model"], cap_text(part["isa_cap"]), str(part["batch_size"]), advice)
        for entry in report["matrix"]
        for part in entry["breakdown"] or ()
        if (entry["model"], part["isa_cap"], part["batch_size"]) in below
        for advice in advice_of(part)
    )
    columns = (*words("Model", "ISA cap"), *figures("Batch"), *words("Advice"))
    return Grid("Below the published speedup", columns, texts)
