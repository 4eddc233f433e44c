"""Tables over all models of a matrix."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from job import text_format
from job.report.matrix.tables import ModelSpeed, accuracy_rows, setting_name, settings, speed_rows
from job.report.render.blocks import Column, Grid, figures, words
from job.report.run.breakdown import advice_of
from job.report.run.summary import gate_limit, gate_value
from job.report.run.tables import INT8_ENGINE_NAMES, NO_CAP, UNCAPPED_NOTE, cap_name

NONE = text_format.DASH
MEASURED, PUBLISHED = "measured", "published"
YES_NO = {True: "yes", False: "no", None: ""}
PUBLISHED_NOTE = "Published ratio: of the published images/s, which another machine measured."

ENGINES_NOTE = (
    "The same weights and scales in each engine. Its ratio: the fastest against the faster FP32 "
    "in Paddle, as in table II."
)
DROP_NOTE = "max_top1_drop: FP32 less INT8, in points."
ISA_CAP = Column("ISA cap")

# A column and what stands in it.
Cells = tuple[Column, Callable[[ModelSpeed], str]]


def accuracy_grid(report: Mapping[str, Any]) -> Grid:
    """Table I: the fake-quantized model and INT8, measured and published."""
    rows = tuple(
        (
            row.model,
            PUBLISHED if row.published else MEASURED,
            _percent(row.fp32_top1),
            *_pair(row.fake_top1, row.int8_top1),
            *_pair(row.fake_top5, row.int8_top5),
        )
        for row in accuracy_rows(report)
    )
    columns = (
        *words("Model", ""),
        *figures("FP32\ntop-1", "Fake\ntop-1", "INT8\ntop-1", "Change"),
        *figures("Fake\ntop-5", "INT8\ntop-5", "Change"),
    )
    return Grid("Table I. Accuracy in percent", columns, rows, _accuracy_note(report))


def _pair(fake: float | None, int8: float | None) -> tuple[str, str, str]:
    change = NONE if fake is None or int8 is None else text_format.signed(int8 - fake)
    return _percent(fake), _percent(int8), change


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _accuracy_note(report: Mapping[str, Any]) -> str:
    note = "Fake: the fake-quantized model. Change: INT8 less fake-quantized, in points."
    done = [entry for entry in report["matrix"] if entry["report"] is not None]
    without = [entry["model"] for entry in done if entry["accuracy"] is None]
    if not without:
        return note
    who = "of any model" if len(without) == len(done) else f"of {', '.join(without)}"
    return f"{note} No accuracy {who} was measured: the images are synthetic."


def speed_grid(report: Mapping[str, Any]) -> Grid:
    """Table II, all settings in one, the published figures beside."""
    rows = speed_rows(report)
    cells: list[Cells] = [(Column("Model"), lambda row: row.model), *_setting_cells(rows)]
    cells += _measured_cells()
    if _any_published(rows):
        cells += [
            (Column("Published\nFP32", True), lambda row: _given(row.published_fp32)),
            (Column("Published\nINT8", True), lambda row: _given(row.published_int8)),
            (Column("Published\nratio", True), lambda row: _ratio(row.published_ratio)),
            (Column("At or\nabove"), lambda row: YES_NO[row.reached]),
        ]
    columns = tuple(column for column, _ in cells)
    texts = tuple(tuple(tell(row) for _, tell in cells) for row in rows)
    return Grid("Table II. Speed", columns, texts, _speed_note(rows))


def speed_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Table II for narrow screens: one for each setting, the published figures below."""
    rows = speed_rows(report)
    cells = _measured_cells()
    published = _any_published(rows)
    columns = (Column("Model"), *words(*[""] * published), *(column for column, _ in cells))
    columns += words(*["At or\nabove"] * published)
    grids = []
    for setting in settings(rows):
        texts = []
        for row in rows:
            if row.setting != setting:
                continue
            measured = [tell(row) for _, tell in cells]
            texts.append((row.model, MEASURED, *measured, YES_NO[row.reached]))
            if row.published_fp32 is not None or row.published_int8 is not None:
                told = (_given(row.published_fp32), _given(row.published_int8))
                texts.append((row.model, PUBLISHED, *told, _ratio(row.published_ratio), "", ""))
        if not published:
            texts = [(model, *told) for model, _, *told, _ in texts]
        grids.append(Grid(f"Table II. Speed at {setting_name(setting)}", columns, tuple(texts)))
    last = grids[-1:]
    noted = (Grid(g.title, g.columns, g.rows, _speed_note(rows)) for g in last)
    return (*grids[:-1], *noted)


def _any_published(rows: Sequence[ModelSpeed]) -> bool:
    return any(row.published_fp32 or row.published_int8 for row in rows)


def _setting_cells(rows: Sequence[ModelSpeed]) -> list[Cells]:
    """Batch and ISA cap; threads and instances only where they are not all 1."""
    cells: list[Cells] = [(Column("Batch", True), lambda row: str(row.setting.batch_size))]
    if any(row.setting.threads > 1 for row in rows):
        cells.append((Column("Threads", True), lambda row: str(row.setting.threads)))
    if any(row.setting.instances > 1 for row in rows):
        cells.append((Column("Instances", True), lambda row: str(row.setting.instances)))
    return [*cells, (ISA_CAP, lambda row: _cap(row.setting.isa_cap))]


def _measured_cells() -> list[Cells]:
    return [
        (Column("FP32\nimages/s", True), lambda row: text_format.significant(row.fp32)),
        (Column("INT8\nimages/s", True), lambda row: text_format.significant(row.int8)),
        (
            Column("Ratio", True),
            lambda row: text_format.judged_times(row.ratio, row.stable),
        ),
        (
            Column("95%", True),
            lambda row: text_format.known_interval(row.ratio_interval),
        ),
    ]


def _cap(isa_cap: str) -> str:
    return "none" if isa_cap == NO_CAP else isa_cap


def _rate(value: float | None) -> str:
    return NONE if value is None else text_format.significant(value)


def _given(value: float | None) -> str:
    """A published figure with the digits that it was published with."""
    return NONE if value is None else f"{value:,.9g}"


def _ratio(value: float | None) -> str:
    return NONE if value is None else text_format.times(value)


def _speed_note(rows: Sequence[ModelSpeed]) -> str:
    ran = dict.fromkeys((row.isa, _cap(row.setting.isa_cap)) for row in rows)
    notes = [
        "INT8 ran on " + ", ".join(f"{isa} (cap {cap})" for isa, cap in ran) + ".",
        "95%: of the ratio, paired by rounds.",
    ]
    if _any_published(rows):
        notes.append(PUBLISHED_NOTE)
    if not all(row.stable for row in rows):
        notes.append(f"{text_format.UNSTABLE_RATIO} The model's own report says why.")
    return " ".join(notes)


def engines_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """INT8 in each engine, one for each ISA cap; none where Paddle is the only one."""
    names = ("paddle", *dict.fromkeys(name for row in speed_rows(report) for name in row.engines))
    rates = [(Column(INT8_ENGINE_NAMES[name], True), partial(_rate_in, name)) for name in names]
    title = "Table II, continued. INT8 images/s by engine"
    return _engines_grids(report, title, [*rates, _FASTEST])


def fastest_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """The same for narrow screens: of each row the fastest engine only."""
    rate = (Column("images/s", True), lambda row: _rate_in(row.fastest, row))
    return _engines_grids(
        report, "Table II, continued. INT8 in the fastest engine", [_FASTEST, rate]
    )


def _engines_grids(
    report: Mapping[str, Any], title: str, told: Sequence[Cells]
) -> tuple[Grid, ...]:
    rows = speed_rows(report)
    if not any(row.engines for row in rows):
        return ()
    cells: list[Cells] = [
        (Column("Model"), lambda row: row.model),
        *(cell for cell in _setting_cells(rows) if cell[0] != ISA_CAP),
        *told,
        (
            Column("Its\nratio", True),
            lambda row: text_format.judged_times(row.best_ratio, row.best_stable),
        ),
        (Column("95%", True), lambda row: text_format.known_interval(row.best_interval)),
    ]
    if _any_published(rows):
        cells.append((Column("At or\nabove"), lambda row: YES_NO[row.best_reached]))
    caps = list(dict.fromkeys(row.setting.isa_cap for row in rows))
    return tuple(
        Grid(
            f"{title}, {cap_name(cap)}",
            tuple(column for column, _ in cells),
            tuple(tuple(t(row) for _, t in cells) for row in rows if row.setting.isa_cap == cap),
            _engines_note(rows) if cap == caps[-1] else "",
        )
        for cap in caps
    )


def _engines_note(rows: Sequence[ModelSpeed]) -> str:
    notes = [ENGINES_NOTE]
    if any("onnxruntime" in row.engines and row.setting.isa_cap != NO_CAP for row in rows):
        notes.append(UNCAPPED_NOTE)
    if not all(row.best_stable for row in rows):
        notes.append(text_format.UNSTABLE_RATIO)
    return " ".join(notes)


def _rate_in(name: str, row: ModelSpeed) -> str:
    """INT8 images/s in an engine."""
    return _rate(row.int8 if name == "paddle" else row.engines.get(name))


_FASTEST: Cells = (Column("Fastest"), lambda row: INT8_ENGINE_NAMES[row.fastest])


def models_grid(report: Mapping[str, Any]) -> Grid:
    """How each model fared, and where its own report lies."""
    texts = tuple(_model_cells(entry) for entry in report["matrix"])
    columns = (
        *words("Model", "Status"),
        *figures("Ops in\nINT8", "Ops in\nFP32", "FP32 size", "INT8 size"),
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
        text_format.count(entry["audit"]["fp32_ops"]),
        text_format.size(entry["models"]["fp32"]["bytes"]),
        text_format.size(entry["models"]["int8"]["bytes"]),
        entry["report"],
    )


def failures_grid(report: Mapping[str, Any]) -> Grid:
    """The models that failed or have not run to their end, and why."""
    texts = tuple(
        (entry["model"], str(entry["error"]["exit_code"]), entry["error"]["message"])
        for entry in report["matrix"]
        if entry["error"] is not None
    )
    columns = (*words("Model"), *figures("Exit code"), *words("Why"))
    return Grid("Without a result", columns, texts)


def gates_grid(report: Mapping[str, Any]) -> Grid:
    """The gates of every model."""
    texts = tuple(
        (
            entry["model"],
            gate["name"],
            gate_limit(gate["name"], gate["limit"]),
            gate_value(gate["value"], gate["limit"]),
            "passed" if gate["passed"] else "FAILED",
        )
        for entry in report["matrix"]
        for gate in entry["gates"] or ()
    )
    columns = (*words("Model", "Gate"), *figures("Limit", "Measured"), *words("Verdict"))
    drops = any(name == "max_top1_drop" for _, name, *_ in texts)
    return Grid("Gates", columns, texts, DROP_NOTE if drops else "")


def obstacles_grid(report: Mapping[str, Any]) -> Grid:
    """What stands in the way of models below their published ratio, as their breakdowns tell."""
    below = {
        (row.model, row.setting.isa_cap, row.setting.batch_size)
        for row in speed_rows(report)
        if row.reached is False
    }
    texts = tuple(
        (entry["model"], _cap(part["isa_cap"]), str(part["batch_size"]), advice)
        for entry in report["matrix"]
        for part in entry["breakdown"] or ()
        if (entry["model"], part["isa_cap"], part["batch_size"]) in below
        for advice in advice_of(part)
    )
    columns = (*words("Model", "ISA cap"), *figures("Batch"), *words("Where the time goes"))
    return Grid("Below the published ratio", columns, texts)
