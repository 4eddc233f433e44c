"""The report of a run: numbers, tables, summary, plots and terminal."""

import re

import pytest
from html_page import ATTACK
from sample_report import (
    as_html,
    as_markdown,
    benchmark_entry,
    engine_entry,
    model_accuracy,
    sample_report,
)
from sample_variants import attacked_report, every_setting, failed_report, on_terminal

from job import text_format
from job.errors import OutputError
from job.report import cells, tables
from job.report.accuracy_rows import accuracy_rows
from job.report.render import schema_check
from job.report.run import plots as run_plots
from job.report.run import speed
from job.report.run.results import calibration_grid, candidates_text
from job.report.summary import summarize
from job.report.views import MODELS

# numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (text_format.signed(-0.124), "−0.12"),
        (text_format.signed(0.5), "+0.50"),
        (text_format.signed(-0.001), "0.00"),
        (text_format.signed_interval(-0.42, 0.18), "−0.42 to +0.18"),
        (text_format.times(3.194), "3.19×"),
        (text_format.times(12.34), "12.3×"),
        (text_format.significant(0.4123), "0.412"),
        (text_format.significant(50.62), "50.6"),
        (text_format.significant(1672.4), "1,672"),
        (text_format.size(812), "812 B"),
        (text_format.size(330_000), "322 KiB"),
        (text_format.size(102_545_000), "97.8 MiB"),
        (text_format.size(24 * 1024**3), "24.0 GiB"),
        (text_format.duration(4.24), "4.2 s"),
        (text_format.duration(59.97), "60.0 s"),
        (text_format.duration(200), "3 min 20 s"),
        (text_format.duration(3599.6), "1 h 00 min"),
        (text_format.duration(3725), "1 h 02 min"),
        (text_format.probability(0.0003), "p < 0.001"),
        (text_format.probability(0.0347), "p = 0.035"),
        (text_format.probability(0.4318), "p = 0.43"),
        (text_format.plural(1, "image"), "1 image"),
        (text_format.plural(5000, "image"), "5,000 images"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected


# tables and summary


def test_table_one_compares_with_fp32():
    fp32, fake, int8 = accuracy_rows(sample_report())
    assert (fp32.model, fp32.scores[0].value, fp32.scores[0].change) == (
        "fp32",
        pytest.approx(85.24),
        None,
    )
    assert fake.scores[0].change == pytest.approx(-0.06)
    assert fake.scores[0].change_interval is None
    assert int8.scores[0].change == pytest.approx(-0.12)
    low, high = sample_report()["accuracy"]["paired"]["top1_drop_interval"]
    assert int8.scores[0].change_interval == (-high, -low)


def test_other_engines_stand_in_table_one_and_among_the_sizes():
    report = sample_report()
    report["accuracy"]["engines"] = {"openvino": report["accuracy"]["fp32"]}
    report["models"]["openvino"] = {"path": "int8_openvino", "bytes": 2 * 1024**2}
    schema_check.validate(report)
    *_, row = accuracy_rows(report)
    assert (row.model, row.scores[0].change, row.scores[0].change_interval) == ("openvino", 0, None)
    text = as_markdown(report)
    assert "| INT8 in OpenVINO | 85.24 |" in text
    assert "its own engine" in text
    assert re.search(r"\| INT8 in OpenVINO \| \S*openvino\S* \| 2\.00 MiB \|", text)
    assert as_html(report).count("<svg") == as_html(sample_report()).count("<svg")
    report["accuracy"]["engines"]["openvino"] = {
        **report["accuracy"]["fp32"],
        "top5_interval": [99.0, 98.0],
    }
    with pytest.raises(OutputError, match="/accuracy/engines/openvino/top5_interval"):
        schema_check.validate(report)


def test_table_two_has_a_row_for_each_setting():
    first, second = tables.speed_rows(sample_report())
    assert (first.setting.batch_size, first.fp32_engine, first.fp32) == (1, "native", 503.0)
    assert (second.setting.batch_size, second.fp32_engine, second.int8) == (50, "onednn", 5867.0)
    assert [(r.setting.batch_size, r.model) for r in tables.latency_rows(sample_report())] == [
        (1, "fp32"),
        (1, "int8"),
        (50, "fp32"),
        (50, "int8"),
    ]


def test_headline_of_a_passed_run():
    headline = summarize(sample_report()).headline
    assert headline.startswith("Passed: ")
    for phrase in (
        "INT8 is 1.55× as fast as FP32 at batch 1 and 3.51× at batch 50",
        "loses 0.12 points",
        "(85.24% to 85.12%)",
        "11.1 MiB instead of 42.7 MiB on disk (3.85× smaller)",
    ):
        assert phrase in headline


def test_headline_names_the_failed_gate():
    summary = summarize(failed_report())
    assert not summary.passed
    assert summary.headline.startswith(
        "Gate failed: min_speedup is 1.55 (required: at least 4). INT8 is"
    )
    assert (summary.cards[0].value, summary.cards[0].good) == ("Failed", False)


def test_a_gate_that_is_not_judged_is_neither_passed_nor_failed():
    report = unjudged_report()
    schema_check.validate(report)
    summary = summarize(report)
    assert summary.passed
    assert summary.headline.startswith("Passed, but not judged: max_top1_drop.")
    assert (summary.cards[0].value, summary.cards[0].good) == ("Passed in part", None)
    grid = cells.gates_grid(report)
    assert [row[1] for row in grid.rows] == ["not judged", "passed", "passed"]
    assert report["gates"][0]["reason"] in grid.note
    del report["gates"][1:]
    assert summarize(report).headline.startswith("Not judged (max_top1_drop):")
    assert summarize(report).cards[0].value == "Not judged"


def test_a_failed_gate_comes_before_one_that_is_not_judged():
    report = unjudged_report() | {"status": "gate_failed"}
    report["gates"][1].update(limit=4.0, passed=False)
    schema_check.validate(report)
    assert summarize(report).headline.startswith("Gate failed: min_speedup ")
    assert summarize(report).cards[0].good is False


def unjudged_report():
    report = sample_report()
    report["gates"][0] |= {"passed": None, "reason": "FP32 top-1 is no better than chance."}
    return report


def test_headline_when_int8_gains_nothing():
    report = sample_report()
    report["gates"] = []
    report["benchmark"] = [benchmark_entry(1, 100.0, 85.0)]
    report["accuracy"]["paired"]["top1_drop"] = -0.04
    report["models"]["int8"]["bytes"] = 2 * report["models"]["fp32"]["bytes"]
    headline = summarize(report).headline
    assert (
        "Done (no gates set): INT8 is slower: 0.85× the images/s of FP32 at batch 1, gains 0.04"
        in headline
    )
    assert "(2.00× larger)" in headline


def test_many_settings_are_told_as_a_range():
    report = sample_report()
    report["benchmark"] = [
        benchmark_entry(batch, 100.0, 100.0 * batch, threads)
        for threads in (1, 2)
        for batch in (2, 3)
    ]
    summary = summarize(report)
    assert "2.00× to 3.00× as fast as FP32 across 4 combinations" in summary.headline
    assert summary.cards[1].value == "2.00–3.00×"


def test_every_setting_is_named_where_it_differs():
    report = every_setting()
    schema_check.validate(report)
    text = as_markdown(report)
    capped, free = text.split("### Table II. Speed, ")[1:]
    assert capped.startswith("ISA cap avx512_core_vnni\n")
    assert free.startswith("no ISA cap\n")
    for table in (capped, free):
        assert "| Batch | Scenario | Speedup | 95% interval | FP32 images/s |" in table
        assert "| 1 | 1 thread | 3.00× |" in table
        assert "| 50 | 2 instances | 3.00×" in table
    assert "limited to avx512_core_vnni. Instruction set of INT8: avx512_core_vnni." in capped
    assert "\nInstruction set of INT8: avx512_core_amx. FP32 is" in free
    assert free.count("sum over all instances") == 1
    assert "INT8 is 3.00× as fast as FP32 across 8 settings" in text
    assert text.count("| 1 | 1 thread | OpenVINO | 400 | 4.00× | 3.92–4.08 |") == 2
    assert text.count("| 1 | 1 thread | Paddle | 300 | 3.00× | 2.97–3.03 |") == 2
    assert text.count("OpenVINO is the fastest engine") == 2
    assert "| avx512_core_vnni | 1 | 1 thread | 100 |" in text
    assert as_html(report).count("<svg") == 6
    assert "1 of 8 rows is unstable" in text
    assert text.count("4.00×\\*") == 1
    assert cells.UNCAPPED_NOTE not in text
    for entry in report["benchmark"]:
        entry["engines"]["onnxruntime"] = entry["engines"]["openvino"]
    assert as_markdown(report).count(cells.UNCAPPED_NOTE) == 1  # not where there is no cap
    report["benchmark"][4]["engines"]["openvino"]["ratio_interval"] = [3.0, 5.0]
    assert "| OpenVINO | 400 | 4.00×\\* | 3.00–5.00 |" in as_markdown(report)


# A model for the OpenVINO engine in Paddle, as in the report.
IN_PADDLE = {
    "path": "int8_paddle_openvino",
    "bytes": 1024,
    "agreement": {"signal_to_noise_db": 27.25, "same_top1": 100},
    "isa": "avx512_core_vnni",
}


def test_the_ratio_over_the_fastest_fp32_stands_next_to_the_published_ratio():
    report = sample_report()
    report["models"]["paddle_openvino"] = IN_PADDLE
    # Other engines do not log the ISA of their kernels.
    report["models"]["openvino"] = {
        "path": "int8_openvino",
        "bytes": 1024,
        "agreement": {"signal_to_noise_db": 31.25, "same_top1": 100},
    }
    for entry in report["benchmark"]:
        engine = engine_entry("paddle_openvino", entry["batch_size"], 500.0, 2000.0)
        entry["engines"] = {"paddle_openvino": {**engine, "fastest_fp32_ratio": 3.25}}
        entry["fp32_engines"]["paddle_openvino"] = 612.5
        entry["fastest_fp32"] = "paddle_openvino"
    schema_check.validate(report)
    text = as_markdown(report)
    assert "| OpenVINO in Paddle | 2,000 | 4.00× | 3.92–4.08 | 3.25× |" in text
    assert "612" in text
    assert "27.2 dB; " in text
    assert "31.2 dB." in text


@pytest.mark.parametrize(("cap", "noted"), [("avx2", True), ("all", False)])
def test_the_kernels_of_an_engine_were_determined_without_a_cap(cap: str, noted: bool) -> None:
    report = sample_report()
    report["models"]["paddle_openvino"] = IN_PADDLE
    for entry in report["benchmark"]:
        engine = engine_entry("paddle_openvino", entry["batch_size"], 500.0, 2000.0)
        entry |= {"isa_cap": cap, "engines": {"paddle_openvino": engine}}
    assert ("without a cap" in as_markdown(report)) is noted


def test_a_model_that_learnt_nothing_is_told_of():
    report = sample_report()
    assert not any("chance" in notice for notice in summarize(report).notices)
    report["accuracy"]["fp32"] |= {"top1": 11.0, "top1_interval": [8.0, 14.0]}
    (notice,) = [each for each in summarize(report).notices if "chance" in each]
    assert "11.00%" in notice
    assert "(10%)" in notice
    report["accuracy"] = None
    assert not any("chance" in notice for notice in summarize(report).notices)


def test_a_single_cap_is_named_below_the_table():
    report = sample_report()
    for entry in report["benchmark"]:
        entry |= {"isa_cap": "avx2", "isa": "avx2"}
    text = as_markdown(report)
    assert "limited to avx2. Instruction set of INT8: avx2." in text
    assert "ISA cap" not in text


def test_unstable_rows_are_marked_and_explained():
    report = every_setting()
    for text in (as_markdown(report).replace("\\", ""), on_terminal(report, 400)):
        text = " ".join(text.split())
        assert "Table II: 1 of 8 rows is unstable" in text
        # In table II, and where Paddle stands among the engines.
        assert text.count("3.00×*") == 2
        assert text.count("Stop them.") == 1
        assert (
            "* Unstable: batch 50, 2 instances: the ratio's interval is wide and others were "
            "busy. Raise benchmark.rounds. Stop them."
        ) in text
    assert "nstable" not in as_markdown(sample_report())


def test_a_row_says_why_it_is_unstable():
    report = sample_report()
    report["benchmark"][1]["stable"] = False
    with pytest.raises(OutputError, match="/benchmark/1/stable: expected true with no reasons"):
        schema_check.validate(report)


def test_scores_that_differ_between_caps_are_noticed():
    notices = summarize(every_setting()).notices
    (scores,) = [n for n in notices if "INT8 scores at batch 1, 1 thread, no ISA cap" in n]
    assert "ISA cap avx512_core_vnni" in scores
    assert "2.0%" in scores
    assert not [notice for notice in notices if "batch 50" in notice]


def test_cost_of_measuring_is_told():
    report = sample_report()
    report["benchmark"][1]["harness_ms"] = 0.02
    assert "0.013 to 0.02 ms per batch" in as_markdown(report)


def test_forced_run_is_marked_not_comparable():
    report = sample_report()
    report["comparable"] = False
    for text in (as_markdown(report), as_html(report), on_terminal(report, 300)):
        assert "Not comparable" in text


def test_a_missed_gate_never_looks_kept():
    assert cells.gate_value(1.4996, 1.5) == "1.4996"
    assert cells.gate_value(1.5, 1.5) == "1.50"
    assert cells.gate_value(-0.5, 0.5) == "−0.50"


@pytest.mark.parametrize(
    ("absent", "sentence", "plots"),
    [
        (("baseline",), "The baseline was not trained", 6),
        (("qat",), "Post-training quantization (PTQ)", 6),
        (("baseline", "qat"), "The baseline was not trained", 5),
    ],
)
def test_training_that_did_not_happen(absent, sentence, plots):
    report = sample_report()
    for phase in absent:
        report["training"][phase] = None
    schema_check.validate(report)
    text = as_html(report)
    assert sentence in text
    assert text.count("<svg") == plots
    assert sentence in as_markdown(report)


def test_closeness_to_fp32_is_shown():
    report = sample_report()
    for text in (as_html(report), as_markdown(report), on_terminal(report, 80)):
        assert "26.90" in text
        assert "98.40" in text
    del report["accuracy"]["closeness"]
    schema_check.validate(report)
    assert "26.90" not in as_markdown(report)


def test_what_calibration_chose_is_shown():
    report = sample_report()
    text = as_markdown(report)
    parts = report["calibration"]["error_parts"]
    assert f"{parts['weights_db']:.1f}" in text
    assert f"{parts['activations_db']:.1f}" in text


@pytest.mark.parametrize("missing", [True, False])
def test_no_calibration_no_table(missing):
    report = sample_report()
    if missing:
        del report["calibration"]
    else:
        report["calibration"] = None
    assert calibration_grid(report) is None
    as_markdown(report)


@pytest.mark.parametrize("step", [0, 3])
def test_the_kept_candidate_is_named(step):
    report = sample_report()
    training = report["training"]["qat"]
    kept = training["evaluations"][step]
    training["best_step"] = kept["step"]
    text = candidates_text(report)
    numbers = [training["evaluations"][0]["divergence"], kept["divergence"]]
    assert all(f"{number:.3g}" in text for number in numbers)
    assert (f"step {kept['step']:,}" in text) == (step > 0)
    training["evaluations"].pop(0)
    assert candidates_text({**report, "training": {"qat": None}}) is None


def test_post_training_model_is_not_called_qat():
    report = sample_report()
    report["training"]["qat"] = None
    assert "Fake-quantized (PTQ)" in as_markdown(report)
    assert "Fake-quantized (QAT)" not in as_html(report)


def test_synthetic_images_have_no_accuracy():
    report = sample_report()
    report["accuracy"] = None
    report["data"]["format"] = "synthetic"
    report["manifest"]["model"]["weights"] = None
    report["training"] = {"baseline": None, "qat": None}
    report["gates"] = report["gates"][1:]
    schema_check.validate(report)
    assert "at batch 50, and takes 11.1 MiB" in summarize(report).headline
    page = as_html(report)
    assert page.count("<svg") == 4
    for text in (page, as_markdown(report)):
        assert "Not measured, because the images are synthetic." in text
        assert "weights are random" in text
    assert "Table I." not in on_terminal(report, 100)


def test_extreme_reports_are_drawn():
    report = sample_report()
    report["accuracy"] |= {
        "fp32": model_accuracy(5000, 5000),
        "qat_fake": model_accuracy(0, 1),
        "int8": model_accuracy(5000, 5000),
    }
    report["benchmark"] = [benchmark_entry(1, 0.5, 4000.0)]
    report["benchmark"][0]["ratio_interval"] = None
    same = report["benchmark"][0]["int8"]
    same["histogram"] = {"edges_ms": [0.2499, 0.2501], "counts": [1]}
    report["training"]["qat"] |= {"history": [], "evaluations": [], "best_step": None,
                                  "best_top1": None}  # fmt: skip
    report["models"] = {m: {"path": m, "bytes": 900} for m in MODELS}
    report["data"]["bad_images"] = []
    schema_check.validate(report)
    assert as_html(report).count("<svg") == 6
    assert "no smaller" in summarize(report).headline


def test_long_lists_are_shortened_and_say_so():
    report = sample_report()
    report["data"]["bad_images"] = [{"path": f"{i}.png", "reason": "empty"} for i in range(60)]
    text = as_markdown(report)
    assert "Skipped: 60 bad images" in text
    assert "35 more bad images" in text
    assert "59.png" not in text


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1, 60, [1, 2, 5, 10, 20, 50]), (1.2, 3.6, [1.5, 2, 3]), (10.0, 10.9, None)],
)
def test_ticks_are_round(low, high, ticks):
    actual = run_plots.round_ticks(low, high)
    assert ticks is None or actual == ticks
    assert len(actual) >= 3
    assert actual == sorted(actual)
    assert all(low <= tick <= high for tick in actual)


@pytest.mark.parametrize(
    ("lows", "highs", "start"),
    [
        ([84.1, 84.2], [86.1, 86.2], 80),
        ([99.05], [99.55], 98.5),
        ([5.0], [30.0], 0),
        ([100], [100], 99.5),
    ],
)
def test_accuracy_axis_starts_at_a_round_number_below_the_bars(lows, highs, start):
    actual, end = run_plots.zoomed(lows, highs)
    assert actual == start
    assert actual < min(lows)
    assert end > max(highs)


def test_thinned_curve_keeps_its_level():
    steps, values = run_plots.thinned(list(range(10_000)), [2.0] * 10_000)
    assert len(steps) == run_plots.MAX_POINTS
    assert set(values) == {2.0}
    assert steps == sorted(steps)


# terminal


@pytest.mark.parametrize("width", [80, 160])
def test_terminal_tables_of_every_setting_fit(width):
    text = on_terminal(every_setting(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for whole in ("images/s", "3.00×*", "OpenVINO", "fastest", "Unstable"):
        assert whole in text


@pytest.mark.parametrize("width", [80, 160])
def test_terminal_tables_fit(width):
    text = on_terminal(sample_report(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for whole in ("84.11–86.08", "images/s", "5,867", "3.47–3.55", "Peak memory", "passed"):
        assert whole in text


def test_wide_tables_are_divided_so_that_no_word_is_cut():
    report = every_setting()
    report["accuracy"]["closeness"] = {
        model: {
            "signal_to_noise_db": 37.01,
            "signal_to_noise_interval": [35.19, 38.95],
            "same_top1": 100.0,
            "same_top1_interval": [93.98, 100.0],
            "divergence": 0.00017,
            "divergence_interval": [0.00011, 0.00024],
        }
        for model in ("qat_fake", "int8")
    }
    text = on_terminal(report, 80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for column in ("37.01", "0.00017"):
        assert any(line.split()[0] == "INT8" and column in line for line in lines if line.strip())
    assert any(re.search(r"^ +1 +.*OpenVINO.*×", line) for line in lines)
    assert "p50 ms" in text


def test_top_5_of_five_classes_is_left_out():
    report = sample_report()
    assert "Top-5" in as_markdown(report)
    report["manifest"]["model"]["classes"] = 5
    assert "Top-5" not in as_markdown(report)


def test_terminal_shows_user_text_as_it_stands():
    lines = on_terminal(attacked_report(), 400).splitlines()
    assert ATTACK in lines  # the note
    assert any(ATTACK in line and "passed" in line for line in lines)  # a cell


def test_terminal_marks_a_failed_gate():
    assert re.search(r"min_speedup +FAILED +at least 4 +1\.55", on_terminal(failed_report(), 80))


def test_a_percentile_of_too_few_batches_is_not_told():
    report = sample_report()
    report["benchmark"] = [benchmark_entry(1, 10.0, 40.0)]
    report["benchmark"][0]["fp32"]["samples"], report["benchmark"][0]["int8"]["samples"] = 9, 99
    (grid,) = speed.latency_grids(report)
    assert [["–" in cell for cell in row[3:6]] for row in grid.rows] == [
        [False, True, True],
        [False, False, True],
    ]


def test_low_agreement_is_a_warning_with_its_reason() -> None:
    report = sample_report()
    agreement = report["audit"]["agreement"]

    def warnings() -> list[str]:
        return [each for each in summarize(report).notices if "dB only" in each]

    assert warnings() == []
    agreement["halved_fake"] = {"signal_to_noise_db": 13.5, "same_top1": 80.0}
    (halved,) = warnings()
    assert ("AVX512_VNNI" in halved, "13.5 dB" in halved) == (True, True)
    del agreement["halved_fake"]
    agreement["fake_fp32"]["signal_to_noise_db"] = 5.0
    (aware,) = warnings()
    report["manifest"]["quantize"]["strategy"] = "post"
    (post,) = warnings()
    assert ("train.epochs" in aware, "train.epochs" in post) == (True, False)


def test_other_classes_than_the_fake_quantized_models_are_a_warning() -> None:
    report = sample_report()
    int8_fake = report["audit"]["agreement"]["int8_fake"]

    def warnings() -> list[str]:
        return [each for each in summarize(report).notices if "same class" in each]

    assert warnings() == []
    int8_fake["same_top1"] = 53.1
    (warning,) = warnings()
    assert ("53%" in warning, "32 " in warning) == (True, True)
    int8_fake["same_top1"] = None
    assert warnings() == []
