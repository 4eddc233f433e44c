"""The matrix report: schema, tables and rendering."""

import re
from xml.etree import ElementTree

import jsonschema
import pytest
from html_page import ATTACK, Page, objects
from sample_matrix import fail, make_synthetic, sample_matrix
from sample_report import engine_entry
from sample_variants import on_terminal

from job.errors import OutputError
from job.pipeline.report_files import render_files
from job.report import plots, tables
from job.report.matrix import results
from job.report.render import schema_check
from job.report.summary import summarize

# document


def test_schema_is_strict_and_describes_every_key():
    jsonschema.Draft202012Validator.check_schema(schema_check.schema("matrix_report"))
    every = objects(schema_check.schema("matrix_report"))
    places = {place: schema for place, schema in every if "/then/" not in place}
    assert len(places) == 3
    for place, schema in places.items():
        assert schema["additionalProperties"] is False, place
        assert set(schema["required"]) == set(schema["properties"]), place
        for key, value in schema["properties"].items():
            assert value.get("description"), f"{place}/{key}"


def test_parts_of_a_model_are_checked_as_in_its_own_report():
    report = sample_matrix()
    schema_check.validate(report)
    report["matrix"][1]["benchmark"][0]["ratio"] = "3"
    report["matrix"][1]["accuracy"]["int8"]["top1"] = 101
    report["matrix"][2]["published"]["int8_top1"] = -1
    report["matrix"][2]["colour"] = "blue"
    with pytest.raises(OutputError, match="4 faults") as caught:
        schema_check.validate(report)
    for fault in (
        "/matrix/1/accuracy/int8/top1: 101 is greater than the maximum of 100",
        "/matrix/1/benchmark/0/ratio: '3' is not of type 'number'",
        "/matrix/2/published/int8_top1: -1 is less than or equal",
        "/matrix/2: Additional properties are not allowed ('colour' was unexpected)",
    ):
        assert fault in str(caught.value)


def test_statuses_agree():
    report = sample_matrix()
    report["matrix"][0]["status"] = "gate_failed"
    with pytest.raises(OutputError, match="/status: expected 'gate_failed'"):
        schema_check.validate(report)
    fail(report, 1, "gone", 4)
    schema_check.validate(report)
    report["matrix"][1]["error"] = None
    with pytest.raises(OutputError, match="/matrix/1/error: None is not of type 'object'"):
        schema_check.validate(report)
    report["matrix"][2]["benchmark"] = None
    with pytest.raises(OutputError, match="/matrix/2/benchmark: None is not of type 'array'"):
        schema_check.validate(report)


# tables


def test_table_one_stands_beside_the_published_figures():
    rows = results.accuracy_grid(sample_matrix()).rows
    assert rows[2][:3] == ("resnet50", "measured", "85.24")
    assert rows[2][3:] == ("85.18", "85.12", "−0.06", "99.34", "99.32", "−0.02")
    # The tutorial's table I, differences as it prints them.
    assert rows[1][2:] == ("–", "70.72", "70.78", "+0.06", "89.47", "89.39", "−0.08")
    assert rows[3][2:] == ("–", "76.62", "76.53", "−0.09", "93.01", "92.98", "−0.03")


def test_table_two_judges_each_ratio_by_the_published_one():
    grid = results.speed_grid(sample_matrix())
    assert [column.title.replace("\n", " ") for column in grid.columns] == [
        "Model", "Batch", "Threads", "Speedup", "95% interval", "FP32 images/s",
        "INT8 images/s", "ISA cap", "Published FP32", "Published INT8", "Published speedup",
        "Reached",
    ]  # fmt: skip
    assert grid.rows[0] == (
        "mobilenet_v1", "1", "1", "2.74×", "2.71–2.77", "92.0", "252", "avx512_core_vnni",
        "73.98", "227.73", "3.08×", "no",
    )  # fmt: skip
    assert [row[-1] for row in grid.rows] == ["no", "yes", "no", *["yes"] * 9]
    assert "avx512_core_amx (no ISA cap)" in grid.note


def test_ratio_that_equals_the_published_one_reaches_it():
    report = sample_matrix()
    report["matrix"][0]["published"] |= {
        "fp32_images_per_second": 10.0,
        "int8_images_per_second": 10 * report["matrix"][0]["benchmark"][0]["ratio"],
    }
    assert tables.speed_rows(report)[0].reached is True


def test_models_without_published_figures_are_not_judged():
    report = sample_matrix()
    report["matrix"][0]["published"] = None
    report["matrix"][1]["published"]["fp32_images_per_second"] = None
    assert {row.reached for row in tables.speed_rows(report)[:8]} == {None}
    assert "4 of 4 rows" in summarize(report).headline
    for entry in report["matrix"]:
        entry["published"] = None
    assert [len(row) for row in results.speed_grid(report).rows] == [8] * 12
    assert {len(row) for grid in results.speed_grids(report) for row in grid.rows} == {5}
    assert "published" not in on_terminal(report, 160)
    assert summarize(report).headline.endswith("as fast as FP32.")
    assert "<svg" in render_files(report)["report.html"]


def test_scenarios_are_named_where_they_differ():
    report = sample_matrix()
    report["matrix"][0]["benchmark"][2] |= {"threads": 4}
    grid = results.speed_grid(report)
    assert [column.title for column in grid.columns[1:3]] == ["Batch", "Threads"]
    assert (grid.rows[2][1:3], grid.rows[2][7]) == (("1", "4"), "none")
    report["matrix"][0]["benchmark"][1] |= {"scenario": "throughput", "instances": 2}
    grid = results.speed_grid(report)
    assert [column.title for column in grid.columns[1:3]] == ["Batch", "Scenario"]
    assert (grid.rows[1][1:3], grid.rows[1][7]) == (("50", "2 instances"), "avx512_core_vnni")
    titles = [each.title for each in results.speed_grids(report)]
    assert "Table II. Speed at batch 50, 2 instances, ISA cap avx512_core_vnni" in titles
    assert "Table II. Speed at batch 1, 4 threads, no ISA cap" in titles
    assert "Table II. Speed at batch 1, 1 thread, no ISA cap" in titles


def test_disturbed_rows_are_marked():
    report = sample_matrix()
    row = report["matrix"][1]["benchmark"][0]
    row |= {"stable": False, "unstable_reasons": [{"what": "throttled", "advice": "wait"}]}
    grid = results.speed_grid(report)
    assert [r[3] for r in grid.rows if r[3].endswith("*")] == ["3.79×*"]
    assert "* Unstable" in grid.note
    assert "Table II: 1 of 12 rows is unstable" in " ".join(summarize(report).notices)
    assert "unstable" not in " ".join(summarize(sample_matrix()).notices)


def test_models_below_the_published_ratio_say_where_the_time_goes():
    report = sample_matrix()
    report["matrix"][0]["breakdown"][0]["advice"] = ["Fewer reorders.", "Larger batches."]
    report["matrix"][0]["breakdown"][1]["advice"] = ["Another CPU."]
    report["matrix"][1]["breakdown"][0]["advice"] = ["Not shown: its speedups are reached."]
    grid = results.below_published_grid(report)
    assert grid.rows == (
        ("mobilenet_v1", "avx512_core_vnni", "1", "Fewer reorders."),
        ("mobilenet_v1", "avx512_core_vnni", "1", "Larger batches."),
        ("mobilenet_v1", "none", "1", "Another CPU."),
    )
    text = render_files(report)["report.md"]
    assert f"### {grid.title}" in text
    assert "Not shown" not in text


def test_what_a_small_batch_takes_does_not_explain_a_large_one():
    report = sample_matrix()
    report["matrix"][0]["breakdown"][0]["advice"] = ["Larger batches."]
    for row in report["matrix"][0]["benchmark"]:
        row["ratio"] = 2.0 if row["batch_size"] == 50 else 9.0
    assert not results.below_published_grid(report).rows


def test_other_engines_stand_beside_paddle():
    report = sample_matrix()
    assert results.engines_grids(report) == ()
    speed = engine_entry("openvino", 1, 100.0, 325.0)
    speed |= {"images_per_second": 271.0, "ratio_interval": [3.2, 3.3]}
    row = report["matrix"][0]["benchmark"][0]
    row |= {"engines": {"openvino": speed}, "fastest": "openvino"}
    capped, free = results.engines_grids(report)
    assert capped.title.endswith("INT8 images/s by engine, ISA cap avx512_core_vnni")
    assert free.title.endswith("INT8 images/s by engine, no ISA cap")
    assert [column.title.replace("\n", " ") for column in capped.columns] == [
        "Model", "Batch", "Threads", "Paddle", "OpenVINO", "Fastest", "Speedup",
        "95% interval", "Reached",
    ]  # fmt: skip
    # OpenVINO's 3.25 reaches the published 3.08, Paddle's 2.74 does not.
    assert capped.rows[0] == (
        "mobilenet_v1", "1", "1", "252", "271", "OpenVINO", "3.25×", "3.20–3.30", "yes",
    )  # fmt: skip
    assert {cells[4:6] for cells in (*capped.rows[1:], *free.rows)} == {("–", "Paddle")}
    assert (capped.note, "fastest" in free.note, "*" in free.note) == ("", True, False)
    assert "ONNX Runtime" not in free.note
    row["engines"] = {"openvino": speed, "onnxruntime": {**speed, "images_per_second": 200.0}}
    assert "ONNX Runtime ignores" in results.engines_grids(report)[1].note
    row["engines"] = {"openvino": speed}
    assert re.search(r"10 of 12 .*Paddle, 11 .*fastest", summarize(report).headline)
    assert re.search(r"mobilenet_v1 +1 +1 +252 +271 +OpenVINO +3.25×", on_terminal(report, 160))
    assert re.search(r"mobilenet_v1 +OpenVINO +271 +3.25×", on_terminal(report, 80))
    speed["ratio_interval"] = [2.9, 3.6]
    capped, free = results.engines_grids(report)
    assert (capped.rows[0][6], "* Unstable" in free.note) == ("3.25×*", True)
    for entry in report["matrix"]:
        entry["published"] = None
    assert {len(cells) for cells in results.engines_grids(report)[0].rows} == {8}


def test_the_ratio_over_the_fastest_fp32_stands_next_to_the_published_ratio():
    report = sample_matrix()
    row = report["matrix"][0]["benchmark"][0]
    speed = engine_entry("paddle_openvino", 1, 92.0, 460.0) | {"fastest_fp32_ratio": 2.07}
    row |= {"engines": {"paddle_openvino": speed}, "fastest": "paddle_openvino"}
    row |= {"fastest_fp32": "paddle_openvino", "fastest_fp32_ratio": 1.25}
    row |= {"fastest_fp32_ratio_interval": [1.2, 1.3]}
    schema_check.validate(report)
    capped, free = results.engines_grids(report)
    assert capped.columns[-1].title == free.columns[-1].title == "Over fastest\nFP32"
    assert capped.rows[0][-1] == "2.07×"
    # The other rows were measured by an older version.
    assert {cells[-1] for cells in (*capped.rows[1:], *free.rows)} == {"–"}
    assert "Over fastest FP32: " in free.note
    files = render_files(report)
    assert re.search(r"\| 5.00× \| .* \| 2.07× \|\n", files["report.md"])
    assert "2.07×" in Page(files["report.html"]).texts


# the glance


def test_headline_and_cards():
    summary = summarize(sample_matrix())
    assert summary.headline.startswith("3 models, all done. INT8 is 2.74× to 7.27× as fast as")
    assert "10 of 12" in summary.headline
    assert [card.value for card in summary.cards] == [
        "Passed", "2.74–7.27×", "10 of 12", "−0.06 points",
    ]  # fmt: skip
    assert summary.cards[2].detail.endswith(" mobilenet_v1")


def test_failed_models_are_told_first():
    report = sample_matrix()
    fail(report, 2, "w.pdparams is missing", 4)
    report["matrix"][0] |= {"status": "gate_failed"}
    summary = summarize(report)
    assert not summary.passed
    assert summary.headline.startswith(
        "3 models; failed: vgg19; gate failed: mobilenet_v1. INT8 is"
    )
    assert summary.cards[0].detail == "2 of 3 models"
    files = render_files(report)
    assert "| vgg19 | 4 | w.pdparams is missing |" in files["report.md"]
    assert re.search(r"vgg19 +4 +w.pdparams is missing", on_terminal(report, 80))


def test_report_in_which_all_failed():
    report = sample_matrix()
    for index in range(3):
        fail(report, index, "gone", 4)
    files = render_files(report)
    assert "<svg" not in files["report.html"]
    assert "Not measured." in files["report.md"]
    assert "all" not in summarize(report).headline


def test_synthetic_images_have_no_accuracy():
    report = sample_matrix()
    make_synthetic(report)
    text = render_files(report)["report.md"]
    assert "Accuracy was not measured, because the images are synthetic." in text
    assert "| vgg19 | published | – | 72.30 | 72.09 | −0.21 |" in text
    assert "| measured |" not in text.partition("## Speed")[0]
    assert summarize(report).cards[3].value == "–"
    report["matrix"][0]["accuracy"] = sample_matrix()["matrix"][0]["accuracy"]
    assert "Accuracy of resnet50, vgg19 was not measured" in " ".join(
        on_terminal(report, 160).split()
    )


# how it is set


@pytest.mark.parametrize(("width", "titles"), [(80, 4), (100, 4), (160, 1)])
def test_terminal_tables_fit(width, titles):
    text = on_terminal(sample_matrix(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.count("Table II.") == titles
    for whole in ("mobilenet_v1", "2.71–2.77", "73.98", "227.73", "3.08×", "images/s"):
        assert whole in text


@pytest.mark.parametrize(("width", "titles"), [(80, 2), (160, 1)])
def test_table_one_with_long_names_fits_a_terminal(width, titles):
    report = sample_matrix()
    name = report["matrix"][0]["model"] = "shufflenet_v2_x0_25"
    report["matrix"][0]["accuracy"]["fp32"]["top1"] = 100.0
    text = on_terminal(report, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.count("Table I.") + text.count("Table I,") == titles
    assert len(re.findall(rf"{name} +(measured|published) ", text)) == 2 * titles
    assert "Fake: " in text


def test_markdown_rows_have_as_many_cells_as_their_header():
    text = render_files(sample_matrix())["report.md"].split("```")[0]
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    assert len(tables) == 6
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1, lines[0]


def test_html_is_self_contained_and_shows_user_text_as_it_stands():
    report = sample_matrix()
    report["name"] = ATTACK
    report["notes"] = [ATTACK]
    fail(report, 0, ATTACK, 1)
    text = render_files(report)["report.html"]
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "img", "link", "iframe", "image"}
    assert page.texts.count(ATTACK) == 3
    assert text == render_files(report)["report.html"]


def test_picture_is_well_formed_and_has_every_model():
    picture, caption = plots.draw("ratios", sample_matrix())
    root = ElementTree.fromstring(picture)  # noqa: S314 -- our own picture
    texts = {node.text for node in root.iter() if node.text}
    assert {"mobilenet_v1", "resnet50", "vgg19", "published"} <= texts
    assert {"batch 1, ISA cap avx512_core_vnni", "batch 50, no ISA cap"} <= texts
    assert "published" in caption
    assert not re.findall(r"(?:fill|stroke): #\w+", picture)


def test_a_model_whose_gate_is_not_judged_is_named():
    report = sample_matrix()
    gate = {"name": "max_top1_drop", "limit": 1.0, "value": 0.0, "passed": None}
    report["matrix"][1]["gates"] = [gate | {"reason": "FP32 top-1 is no better than chance."}]
    schema_check.validate(report)
    assert report["matrix"][1]["model"] in summarize(report).headline
    assert "all passed" not in summarize(report).headline
    assert "not judged" in on_terminal(report, 100)
