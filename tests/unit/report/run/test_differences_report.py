"""What the report tells of INT8's errors, op by op, and of the fallback to FP32."""

import copy
import io

import pytest
from rich.console import Console
from sample_report import as_html, as_markdown, sample_report

from job.errors import OutputError
from job.pipeline.build_report import fallback_notes
from job.report import terminal
from job.report.render import schema_check

FALLBACK = {
    "steps": [
        {"op": None, "top1_drop": 3.125},
        {"op": "conv2d_19.tmp_0", "top1_drop": -0.25},
        {"op": "conv2d_4.tmp_0", "top1_drop": 0.5},
    ],
    "kept": 1,
    "stopped": "no op that is left in INT8 differs",
}


def with_fallback():
    report = sample_report()
    report["audit"]["fallback"] = FALLBACK
    return report


def on_terminal(report):
    output = io.StringIO()
    terminal.print_tables(report, Console(file=output, width=120, color_system=None))
    return output.getvalue()


def test_the_worst_ops_are_named():
    text = as_markdown(sample_report())
    assert "### Operators that INT8 changes most" in text
    assert "| conv2d_19.tmp_0 | conv2d | 17.2 | 46.88 |" in text
    assert "Fallback to FP32" not in text
    assert "conv2d_19.tmp_0" in as_html(sample_report())


def test_terminal_names_them_when_accuracy_misses_its_gate():
    assert "conv2d_19.tmp_0" not in on_terminal(sample_report())
    report = sample_report()
    report["gates"][0].update(limit=0.1, passed=False)
    assert "Operators that INT8 changes most" in on_terminal(report)


def test_no_difference_is_told():
    report = sample_report()
    report["audit"]["differences"] = []
    assert "No INT8 operator differs from the fake-quantized model." in as_markdown(report)
    report["gates"][0].update(limit=0.1, passed=False)
    assert "INT8 changes most" not in on_terminal(report)


def test_fallback_is_told_step_by_step():
    report = with_fallback()
    schema_check.validate(report)
    text = as_markdown(report)
    assert "| none | 0 | 3.12 |  |" in text
    assert "| conv2d_19.tmp_0 | 1 | −0.25 | kept |" in text
    assert "It stopped because no op that is left in INT8 differs." in text
    assert "Fallback to FP32" in as_html(report)
    assert "Fallback to FP32" in on_terminal(report)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("differences", 0, "signal_to_noise_db"), None, "/audit/differences/0/signal_to_noise_db"),
        (("fallback", "kept"), -1, "/audit/fallback/kept"),
        (("fallback", "steps"), [], "/audit/fallback/steps"),
    ],
)
def test_schema_refuses(path, value, told):
    report = with_fallback()
    place = report["audit"] = copy.deepcopy(report["audit"])
    *before, last = path
    for key in before:
        place = place[key]
    place[last] = value
    with pytest.raises(OutputError, match=told):
        schema_check.validate(report)


@pytest.mark.parametrize(
    ("fallback", "notes"),
    [
        (None, []),
        (
            FALLBACK,
            [
                "Fallback left 1 operator in FP32, which took the top-1 drop on the selection "
                "split from 3.12 to -0.25 points."
            ],
        ),
        (
            {**FALLBACK, "kept": 0},
            [
                "Fallback left no operator in FP32: with all in INT8 the top-1 drop on the "
                "selection split is the best."
            ],
        ),
    ],
)
def test_notes(fallback, notes):
    assert fallback_notes(fallback) == notes
