"""A report of INT8 that is slower than FP32 states this, and what to deploy instead."""

from typing import Any

from sample_report import as_html, benchmark_entry, engine_entry, sample_report
from sample_variants import on_terminal

from job.report.run.plots import accuracy
from job.report.run.recommend import recommendations
from job.report.summary import summarize


def slower(**changes: Any) -> dict[str, Any]:
    report = sample_report()
    report["benchmark"] = [benchmark_entry(1, 100.0, 79.0, **changes)]
    report["gates"] = []
    return report


def test_headline_and_card() -> None:
    summary = summarize(slower())
    assert "INT8 is slower: 0.79× the images/s of FP32" in summary.headline
    card = next(card for card in summary.cards if card.title.startswith("Speedup"))
    assert card.warning
    assert 'class="card warn"' in as_html(slower())
    assert 'class="card warn"' not in as_html(sample_report())


def test_slower_at_some_settings() -> None:
    report = slower()
    report["benchmark"].append(benchmark_entry(50, 100.0, 210.0))
    assert "(slower at batch 1)" in summarize(report).headline


def test_alternatives_are_ranked_by_gain() -> None:
    report = slower(engines={"openvino": engine_entry("openvino", 1, 100.0, 150.0)})
    report["benchmark"].append(benchmark_entry(50, 100.0, 210.0))
    (text,) = recommendations(report)
    places = [text.index(name) for name in ("batch size 50", "OpenVINO", "FP32 at the same")]
    assert places == sorted(places)
    assert recommendations(sample_report()) == ()


def test_alternatives_include_fp32_and_larger_batches_of_the_openvino_engine() -> None:
    report = slower()
    report["benchmark"][0]["fp32_engines"]["paddle_openvino"] = 300.0
    engines = {"paddle_openvino": engine_entry("paddle_openvino", 50, 100.0, 800.0)}
    report["benchmark"].append(benchmark_entry(50, 100.0, 210.0, engines=engines))
    (text,) = recommendations(report)
    listed = ["INT8 in OpenVINO in Paddle with batch size 50 (", "FP32 in OpenVINO in Paddle at"]
    places = [text.index(name) for name in (*listed, "FP32 at the same")]
    assert places == sorted(places)


def test_a_ratio_that_may_be_above_1_leads_to_no_alternative() -> None:
    report = slower(engines={"openvino": engine_entry("openvino", 1, 100.0, 150.0)})
    report["benchmark"][0]["ratio_interval"] = [0.3, 1.9]
    (text,) = recommendations(report)
    assert "0.79×" in text
    assert "OpenVINO" not in text


def test_the_terminal_prints_the_advice() -> None:
    advice = sample_report()["breakdown"][0]["advice"][0].split(":")[0]
    assert advice in " ".join(on_terminal(slower(), 100).split())
    assert advice not in " ".join(on_terminal(sample_report(), 100).split())


def test_unstable_ratios_are_marked_in_headline_and_card() -> None:
    reasons = [{"what": "noise", "advice": "Wait."}]
    summary = summarize(slower(stable=False, unstable_reasons=reasons))
    assert "0.79×*" in summary.headline
    assert any(card.value == "0.79×*" for card in summary.cards)


def test_two_classes_have_no_plot_of_top5() -> None:
    report = sample_report()
    report["manifest"]["model"]["classes"] = 2
    assert len(accuracy(report)[0].axes) == 1
    assert len(accuracy(sample_report())[0].axes) == 2
