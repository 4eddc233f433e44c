"""Reports of the errors of INT8 ops and of the fallback to FP32."""

import copy
import re

import pytest
from sample_report import as_html, as_markdown, sample_report
from sample_variants import on_terminal

from job.errors import OutputError
from job.pipeline.build_report import correction_notes, fallback_notes
from job.report.render import schema_check

FALLBACK = {
    "measure": "top1",
    "steps": [
        {"op": None, "top1_drop": 3.125, "signal_to_noise_db": 18.25},
        {"op": "conv2d_19.tmp_0", "top1_drop": -0.25, "signal_to_noise_db": 22.0},
        {"op": "conv2d_4.tmp_0", "top1_drop": 0.5, "signal_to_noise_db": 24.04},
    ],
    "kept": 1,
    "stopped": "no op that is left in INT8 differs",
}


def with_fallback():
    report = sample_report()
    report["audit"]["fallback"] = FALLBACK
    return report


def test_the_worst_ops_are_named():
    text = as_markdown(sample_report())
    assert "| conv2d_19.tmp_0 | conv2d | 17.2 | 46.88 |" in text
    assert "Fallback to FP32" not in text
    assert "conv2d_19.tmp_0" in as_html(sample_report())


def test_terminal_names_them_when_accuracy_misses_its_gate():
    assert "conv2d_19.tmp_0" not in on_terminal(sample_report(), 120)
    report = sample_report()
    report["gates"][0].update(limit=0.1, passed=False)
    assert "conv2d_19.tmp_0" in on_terminal(report, 120)


def test_no_difference_is_told():
    report = sample_report()
    report["audit"]["differences"] = []
    text = as_markdown(report)
    assert "Signal-to-noise" not in text
    report["gates"][0].update(limit=0.1, passed=False)
    assert "Signal-to-noise" not in on_terminal(report, 120)


def test_fallback_is_told_step_by_step():
    report = with_fallback()
    schema_check.validate(report)
    text = as_markdown(report)
    assert "| none | 0 | 3.12 | 18.2 |  |" in text
    assert re.search(r"\| conv2d_19.tmp_0 \| 1 \| −0.25 \| 22.0 \| \w+ \|", text)
    assert "| conv2d_4.tmp_0 | 2 | 0.50 | 24.0 |  |" in text
    assert FALLBACK["stopped"] in text
    assert "Fallback to FP32" in as_html(report)
    assert "Fallback to FP32" in on_terminal(report, 120)


@pytest.mark.parametrize(
    ("path", "value", "pointer"),
    [
        (("differences", 0, "signal_to_noise_db"), None, "/audit/differences/0/signal_to_noise_db"),
        (("fallback", "kept"), -1, "/audit/fallback/kept"),
        (("fallback", "steps"), [], "/audit/fallback/steps"),
    ],
)
def test_schema_rejects(path, value, pointer):
    report = with_fallback()
    place = report["audit"] = copy.deepcopy(report["audit"])
    *before, last = path
    for key in before:
        place = place[key]
    place[last] = value
    with pytest.raises(OutputError, match=pointer):
        schema_check.validate(report)


def test_fallback_note_names_count_and_drops():
    assert fallback_notes(None) == []
    (note,) = fallback_notes(FALLBACK)
    for value in ("1 op ", "3.12", "-0.25"):
        assert value in note
    (note,) = fallback_notes({**FALLBACK, "kept": 0})
    assert re.search(r"\d ops?\b|3\.12|0\.25", note) is None
    (note,) = fallback_notes({**FALLBACK, "kept": 2})
    for value in ("2 ops ", "3.12", "0.50"):
        assert value in note


def test_fallback_note_names_decibels_if_images_are_too_few():
    fallback = {**FALLBACK, "measure": "signal_to_noise", "kept": 2}
    (note,) = fallback_notes(fallback)
    for value in ("2 ops ", "18.2", "24.0 dB", "too few images"):
        assert value in note
    (note,) = fallback_notes({**fallback, "kept": 0})
    assert "too few images" in note
    report = sample_report()
    report["audit"]["fallback"] = fallback
    schema_check.validate(report)
    assert "too few" in as_markdown(report)


@pytest.mark.parametrize(
    ("sums", "matrices", "counts"),
    [(0, 0, []), (3, 1, ["3 residual sums use", "1 fully connected layer uses"]),
     (1, 2, ["1 residual sum uses", "2 fully connected layers use"])],
)  # fmt: skip
def test_correction_notes_count_what_was_corrected(sums, matrices, counts):
    notes = correction_notes({"residual_sums": sums, "matrix_scales": matrices})
    assert len(notes) == len(counts)
    for note, count in zip(notes, counts, strict=True):
        assert note.startswith(count)
