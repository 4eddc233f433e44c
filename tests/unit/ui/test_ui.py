"""The displays of a run."""

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from job.errors import DataError
from job.ui.bars import BarUi
from job.ui.choose import make_ui
from job.ui.lines import JsonUi, PlainUi
from job.ui.protocol import Ui
from job.ui.rate import Rate, title


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(ui: Ui) -> None:
    """A short run."""
    with ui:
        ui.stage_reused("prepare", "nothing changed")
        ui.stage_started("qat", "train.seed changed")
        for done in range(101):
            ui.progress("qat", "qat", done, 100, "steps", "loss 0.31")
        ui.message("qat", "2 images [are] bad", "warning")
        ui.stage_finished("qat", 65.0)
        ui.failed(DataError("weights.pdparams is missing", "Put it there."))


def test_json_lines() -> None:
    stream = io.StringIO()
    show(JsonUi(stream))
    lines: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "stage_reused",
        "stage_started",
        "progress",
        "progress",
        "message",
        "stage_finished",
        "error",
    ]
    assert all(line["time"].endswith("Z") for line in lines)
    first, last = lines[2], lines[3]
    assert (first["done"], first["total"], first["unit"], first["per_second"]) == (
        0,
        100,
        "steps",
        None,
    )
    assert (last["done"], last["note"], last["seconds_left"]) == (100, "loss 0.31", 0)
    assert last["per_second"] > 0
    assert lines[4]["level"] == "warning"
    assert lines[6]["exit_code"] == 4
    assert lines[6]["kind"] == "DataError"


def test_plain_lines() -> None:
    stream = io.StringIO()
    show(PlainUi(stream))
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines[:2] == ["prepare: reused: nothing changed", "qat: runs: train.seed changed"]
    assert lines[2] == "qat: 0/100 steps, loss 0.31"
    assert lines[3].startswith("qat: 100/100 steps, ")
    assert "steps/s" in lines[3]
    assert lines[4] == "qat: warning: 2 images [are] bad"
    assert lines[5] == "qat: done in 1 min 05 s"
    assert stream.getvalue().endswith("error: weights.pdparams is missing\nPut it there.\n")


def test_plain_lines_tell_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0])
    monkeypatch.setattr("job.ui.rate.time.monotonic", lambda: next(now))
    stream = io.StringIO()
    ui = PlainUi(stream)
    ui.progress("qat", "selection", 0, 100, "images")
    ui.progress("qat", "selection", 25, 100, "images")
    assert stream.getvalue().endswith("qat selection: 25/100 images, 2.5 images/s, 30.0 s left\n")


def test_work_of_another_model_or_of_another_unit_is_no_part_of_the_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter([0.0, 0.0, 100.0, 200.0, 210.0])
    monkeypatch.setattr("job.ui.rate.time.monotonic", lambda: next(now))
    stream = io.StringIO()
    ui = PlainUi(stream)
    ui.progress("benchmark", "benchmark", 1, 4, "rounds")
    ui.progress("benchmark", "benchmark", 1, 2, "ISA caps")
    ui.progress("benchmark", "benchmark", 2, 4, "rounds")
    assert stream.getvalue().endswith("benchmark: 2/4 rounds, 1 min 40 s each, 3 min 20 s left\n")
    ui.stage_started("benchmark", "another model's")
    ui.progress("benchmark", "benchmark", 2, 4, "rounds")
    ui.progress("benchmark", "benchmark", 3, 4, "rounds")
    assert stream.getvalue().endswith("benchmark: 3/4 rounds, 10.0 s each, 10.0 s left\n")


def test_bars() -> None:
    stream = Terminal()
    show(BarUi(stream))
    text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", stream.getvalue())
    for part in ("✓ prepare", "reused: nothing changed", "qat", "2 images [are] bad", "Put it th"):
        assert part in text


def test_bars_tell_the_time_left_of_slow_work_and_of_work_begun_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ui = BarUi(Terminal())

    def rendered(width: int = 100) -> str:
        console = Console(file=io.StringIO(), width=width)
        with console.capture() as captured:
            console.print(ui._bars.get_renderable())
        return " ".join(re.sub("[━╸╺]", "", captured.get()).split())

    for done in (1, 2):
        now = 100.0 * done
        ui.progress("benchmark", "benchmark", done, 4, "rounds", "batch 1")
    assert "2/4 rounds 1 min 40 s each 0:03:20 batch 1" in rendered()
    ui.progress("benchmark", "benchmark", 2, 4, "rounds", "batch 1, 1 thread, avx512_core_vnni")
    assert " 0:03:20 " in rendered(width=70)
    ui.progress("benchmark", "benchmark", 0, 2, "ISA caps")
    assert "0/2 ISA caps -:--:--" in rendered()
    for done in (1, 2, 3):
        now += 10
        ui.progress("benchmark", "benchmark", done, 3, "rounds", "batch 50")
    assert "3/3 rounds 10.0 s each 0:00:0" in rendered()
    ui.progress("benchmark", "benchmark", 1, 3, "rounds", "batch 1")
    assert "1/3 rounds -:--:-- batch 1" in rendered()


def test_the_display_that_fits() -> None:
    assert isinstance(make_ui("text", io.StringIO()), PlainUi)
    assert isinstance(make_ui("text", Terminal()), BarUi)
    assert isinstance(make_ui("json", Terminal()), JsonUi)


def test_rate_forgets_what_is_long_ago_and_what_was_begun_anew() -> None:
    rate = Rate()
    for now, done in ((0, 0), (10, 1000), (50, 1010), (60, 1020)):
        rate.add(now, done)
    assert rate.per_second == pytest.approx(0.4)
    rate.add(61, 0)
    assert rate.per_second is None


def test_title() -> None:
    assert title("qat", "qat") == "qat"
    assert title("qat", "selection") == "qat selection"
