"""Table columns, notes and the gates table, shared by the reports of a run and of a matrix."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from job import text_format
from job.report.render.blocks import Column, Grid, figures, words
from job.report.tables import (
    NO_CAP,
    EngineSpeed,
    Setting,
    SpeedRow,
    entries,
    has_instances,
    is_matrix,
    scenario_name,
)

NONE = text_format.DASH
# ONNX Runtime has its own kernels, which read no environment variable.
UNCAPPED_NOTE = "The ISA cap limits oneDNN, which Paddle and OpenVINO use. ONNX Runtime ignores it."
UNSTABLE_NOTE = (
    f"{text_format.UNSTABLE} Unstable: the measurement was disturbed or the 95% interval is wide."
)
SPEEDUP_NOTE = (
    "Speedup: INT8 images/s over FP32 images/s, with its 95% interval from paired rounds."
)
OVER_FASTEST_NOTE = (
    "Over fastest FP32: over FP32 in the fastest of all measured engines, which include the "
    "OpenVINO engine in Paddle."
)
VERDICTS = {True: "passed", False: "FAILED", None: "not judged"}
GATE_NOTES = {
    "max_top1_drop": "max_top1_drop: top-1 of FP32 minus top-1 of INT8, in percentage points.",
    "max_map_drop": "max_map_drop: mAP of FP32 minus mAP of INT8, in percentage points.",
    "int8_matches_fp32": "int8_matches_fp32: signal-to-noise ratio of the INT8 outputs against "
    "FP32, in decibels.",
    "min_speedup": "min_speedup: the lowest speedup of the model in table II.",
    "int8_matches_fake": "int8_matches_fake: signal-to-noise ratio of the INT8 scores against the "
    "fake-quantized scores, in decibels.",
}


class Measured(Protocol):
    """A row that was measured at a setting."""

    @property
    def setting(self) -> Setting:
        """Batch size, threads, instances and ISA cap."""


Row = TypeVar("Row")
# A column and the function that returns a row's text in it.
Cell = tuple[Column, Callable[[Row], str]]
INTERVAL = Column("95%\ninterval", True)
OVER_FASTEST_FP32 = Column("Over fastest\nFP32", True)

MEASURED: tuple[Cell[SpeedRow], ...] = (
    # On a narrow screen, only the first columns are visible.
    (Column("Speedup", True), lambda row: text_format.judged_times(row.ratio, row.stable)),
    (INTERVAL, lambda row: text_format.known_interval(row.ratio_interval)),
    (Column("FP32\nimages/s", True), lambda row: text_format.significant(row.fp32)),
    (Column("INT8\nimages/s", True), lambda row: text_format.significant(row.int8)),
)


def grid_of(title: str, cells: Sequence[Cell[Row]], rows: Sequence[Row], note: str = "") -> Grid:
    """Return the table of rows in the given columns."""
    columns = tuple(column for column, _ in cells)
    return Grid(title, columns, tuple(tuple(text(row) for _, text in cells) for row in rows), note)


def setting_cells(report: Mapping[str, Any]) -> list[Cell[Measured]]:
    """Return the columns batch and threads, or batch and scenario if throughput was measured."""
    batch = Column("Batch", True), lambda row: str(row.setting.batch_size)
    if has_instances(report):
        return [batch, (Column("Scenario"), lambda row: scenario_name(row.setting))]
    return [batch, (Column("Threads", True), lambda row: str(row.setting.threads))]


def cap_text(cap: str) -> str:
    """Return an ISA cap as the text of a cell."""
    return "none" if cap == NO_CAP else cap


CAP: Cell[Measured] = (Column("ISA cap"), lambda row: cap_text(row.setting.isa_cap))


def engine_notes(rows: Sequence[SpeedRow], speeds: Sequence[EngineSpeed]) -> Sequence[str]:
    """Return the notes below a table of INT8 in several engines.

    Args:
        rows: the rows of table II.
        speeds: the speeds in the table.
    """
    capped = [row.engines for row in rows if row.setting.isa_cap != NO_CAP]
    uncapped = any(speed.engine == "onnxruntime" for engines in capped for speed in engines)
    unstable = not all(speed.stable for speed in speeds)
    return (*[UNCAPPED_NOTE] * uncapped, *[UNSTABLE_NOTE] * unstable)


def gates_grid(report: Mapping[str, Any]) -> Grid:
    """Return result, limit and measured value of each gate; for a matrix, also the model's name."""
    several = is_matrix(report)
    rows = tuple(
        (
            *((entry["model"],) if several else ()),
            gate["name"],
            # Before the figures, so that a narrow screen shows it.
            VERDICTS[gate["passed"]],
            gate_limit(gate["name"], gate["limit"]),
            gate_value(gate["value"], gate["limit"]),
        )
        for entry in entries(report)
        for gate in entry["gates"] or ()
    )
    model = ("Model",) if several else ()
    columns = (*words(*model, "Gate", "Verdict"), *figures("Limit", "Measured"))
    names = {gate["name"] for entry in entries(report) for gate in entry["gates"] or ()}
    notes = [note for name, note in GATE_NOTES.items() if name in names]
    notes += dict.fromkeys(
        f"{entry['model']}, {gate['name']}: {gate['reason']}" if several else gate["reason"]
        for entry in entries(report)
        for gate in entry["gates"] or ()
        if gate["reason"]
    )
    return Grid("Gates", columns, rows, " ".join(notes))


def gate_limit(name: str, limit: float) -> str:
    """Return a gate's limit in words, such as ``at least 2`` for ``min_speedup``."""
    return f"{'at most' if name.startswith('max') else 'at least'} {limit:g}"


def gate_value(value: float, limit: float) -> str:
    """Return a measured value as text, with enough digits to show that it misses the limit."""
    digits = 2
    while digits < 8 and value != limit and round(value, digits) == limit:
        digits += 1
    return f"{value:.{digits}f}".replace("-", text_format.MINUS)
