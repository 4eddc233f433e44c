"""Notes and warnings, one count of ops, and nothing empty."""

import re

from sample_report import as_html, as_markdown, sample_report

from job.report.render import schema_check
from job.report.run import plots as run_plots
from job.report.summary import summarize


def test_information_is_grey_and_warnings_are_amber():
    report = sample_report()
    report["benchmark"][0] |= {
        "stable": False,
        "unstable_reasons": [{"what": "noise", "advice": "wait"}],
    }
    summary = summarize(report)
    assert summary.notes == tuple(report["notes"])
    assert any("unstable" in notice for notice in summary.notices)
    text = as_html(report)
    assert f'<p class="info">{report["notes"][0]}</p>' in text
    assert text.count('<p class="notice">') == len(summary.notices)


def test_a_forced_run_states_once_that_it_is_not_comparable():
    report = sample_report()
    report |= {"comparable": False, "notes": ["not comparable: no AVX512_VNNI", "other"]}
    summary = summarize(report)
    assert summary.notes == ("other",)
    assert len([notice for notice in summary.notices if "AVX512_VNNI" in notice]) == 1


def test_a_significant_loss_of_accuracy_makes_the_card_amber():
    report = sample_report()
    (card,) = [each for each in summarize(report).cards if each.title.startswith("Top-1")]
    assert not card.warning
    report["accuracy"]["paired"] |= {"top1_drop": 1.0, "top1_drop_interval": [0.4, 1.6]}
    (card,) = [each for each in summarize(report).cards if each.title.startswith("Top-1")]
    assert card.warning


def test_ops_left_in_fp32_have_one_count():
    """The count is the length of the list; `fp32_ops` omits ops without weights."""
    report = sample_report()
    report["audit"]["left_in_fp32"] *= 3
    report["audit"]["fp32_ops"] = 0
    text = as_markdown(report)
    assert "Ops left in FP32: 3." in text
    assert not re.search(r"\b\d+ ops?\b[^.]*\bFP32\b", text.replace("Ops left in FP32: 3", ""))


def test_op_types_that_are_always_fp32_are_listed_with_their_reason():
    report = sample_report()
    reason = "concatenation only copies"
    report["audit"]["types_in_fp32"] = [{"type": "concat", "count": 2, "reason": reason}]
    schema_check.validate(report)
    assert re.search(rf"\| concat +\| +2 \| {reason} ", as_markdown(report))


def test_tables_without_rows_are_left_out():
    report = sample_report()
    report["inputs"] = []
    text = as_markdown(report)
    assert "### Inputs" not in text
    assert "### Artifacts" in text
    assert not re.search(r"\|\n\|[-: |]+\|\n(?!\|)", text)


def test_no_accuracy_axis_above_100():
    report = sample_report()
    report["training"]["qat"]["evaluations"] = [
        {**each, "top1": 99.0 + 0.1 * number}
        for number, each in enumerate(report["training"]["qat"]["evaluations"])
    ]
    figure, _ = run_plots.training(report)
    figure.draw_without_rendering()
    top1 = figure.axes[3]
    assert top1.get_ylabel() == ""
    assert max(top1.get_yticks()) <= 100
