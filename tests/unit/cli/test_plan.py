"""The printed plan and its times."""

import json
from pathlib import Path

import pytest

from job.cli.plan import print_plan, time_text
from job.cli.times import Times
from job.pipeline.estimate import Estimate
from job.pipeline.plan import NO_RESULT, PlannedStage
from job.text_format import rough_duration

STAGE = PlannedStage("int8", "run", NO_RESULT, (), Path("out/int8"), ())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (7.2, "7 s"), (32, "30 s"), (95, "2 min"), (3700, "1 h 00 min")],
)
def test_an_estimate_has_few_digits(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text


def test_unknown_parts_are_printed() -> None:
    assert "60 steps" in time_text(Estimate(30, "60 steps"))
    assert "the images" in time_text(Estimate(None, "", "the images"))
    partly = time_text(Estimate(120, "", "the images"))
    assert "2 min" in partly
    assert "the images" in partly


@pytest.mark.parametrize(("load", "busy"), [(0.4, False), (1.9, True)])
def test_a_measurement_on_busy_cores_says_so(load: float, busy: bool) -> None:
    times = Times({}, measured=True, cores=2, load=load)
    assert ("1.9" in times.basis) == busy


def test_times_are_in_the_text_and_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    times = Times({"int8": Estimate(120, "8 layers")}, measured=False, cores=2)
    print_plan((STAGE,), times, as_json=False)
    text = capsys.readouterr().out
    assert text.count("2 min") == 2
    assert "--probe" in text
    print_plan((STAGE,), times, as_json=True)
    line = json.loads(capsys.readouterr().out)
    assert line["estimate"] == {
        "seconds": 120,
        "work": "8 layers",
        "unknown": "",
        "measured": False,
    }
    print_plan((STAGE,), Times({}, measured=False, cores=2), as_json=True)
    assert json.loads(capsys.readouterr().out)["estimate"] is None
