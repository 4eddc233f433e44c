"""The report of detectors, and of networks that are judged by their outputs."""

from typing import Any

import pytest
from sample_report import as_html, as_markdown, sample_report
from sample_variants import on_terminal

from job.errors import OutputError
from job.manifest.schema import schema
from job.manifest.task_rules import GATES
from job.report.accuracy_rows import accuracy_rows
from job.report.render import schema_check
from job.report.summary import summarize
from job.report.views import DETECTION, OUTPUTS, VIEWS, TaskGate


def found(mean: float, *by_class: float | None) -> dict[str, Any]:
    return {"map": mean, "map_11_point": mean - 1, "class_ap": list(by_class)}


def drop(points: float, *bounds: float) -> dict[str, Any]:
    return {"map_drop": points, "map_drop_interval": list(bounds) or None}


def detection_report() -> dict[str, Any]:
    report = sample_report()
    report["manifest"] |= {"task": "detection"}
    report["manifest"]["gates"] = {"max_map_drop": 1.0, "min_speedup": 1.5}
    report["data"] |= {
        "format": "voc",
        "classes": 3,
        "class_names": ["RBC", "WBC", "Platelets"],
        "objects": {
            "splits": {"test": {"objects": 945, "images_without_objects": 2}},
            "empty_boxes": 3,
        },
    }
    report["accuracy"] = {
        "images": 72,
        "fp32": found(81.5, 84.0, 79.0, None),
        "qat_fake": found(81.0, 83.5, 78.5, None),
        "int8": found(80.75, 84.5, 77.0, None),
        "engines": {},
        "paired": drop(0.75, -0.1, 1.6),
        "paired_fake": drop(0.5, -0.2, 1.2),
        "paired_int8_fake": drop(0.25),
        "closeness": {
            name: {"signal_to_noise_db": value}
            for name, value in (("qat_fake", 25.5), ("int8", 24.25))
        },
        "curves": {
            model: [{"label": 0, "recall": [0.5, 1.0], "precision": [1.0, 0.75]}]
            for model in ("fp32", "int8")
        },
    }
    for phase in report["training"].values():
        phase["best_map"] = phase.pop("best_top1")
        for each in phase["evaluations"]:
            each["map"] = each.pop("top1")
            del each["top5"]
    report["training"]["qat"]["selected_by"] = "signal_to_noise_db"
    report["training"]["baseline"]["selected_by"] = "map"
    for each in ("int8_fake", "fake_fp32"):
        report["audit"]["agreement"][each]["same_top1"] = None
    report["gates"][0] |= {"name": "max_map_drop", "limit": 1.0, "value": 0.75}
    return report


def outputs_report() -> dict[str, Any]:
    report = detection_report()
    report["manifest"] |= {"task": "outputs"}
    closeness = report["accuracy"]["closeness"]
    report["accuracy"] = {"images": 72, "closeness": closeness}
    report["data"] |= {"format": "images", "classes": 1}
    report["training"] = {"baseline": None, "qat": None}
    report["gates"][0] |= {"name": "int8_matches_fp32", "limit": 20.0, "value": 24.25}
    return report


def test_table_one_has_the_map_of_each_model_and_no_top1() -> None:
    report = detection_report()
    schema_check.validate(report)
    rows = accuracy_rows(report)
    assert [row.scores[0].value for row in rows] == [81.5, 81.0, 80.75]
    assert rows[2].scores[0].change_interval == (-1.6, 0.1)
    text = as_markdown(report)
    assert "| INT8 | 80.75 | −0.75 | 79.75 | −0.75 |" in text
    for other in ("op-1", "op-5", "class %"):
        assert other not in text.split("## Manifest")[0]


def test_classes_that_lose_most_come_first_and_empty_classes_are_left_out() -> None:
    text = as_markdown(detection_report())
    assert text.index("| WBC | 1 | 79.00 | 77.00 | −2.00 |") < text.index(
        "| RBC | 0 | 84.00 | 84.50 |"
    )
    assert "| Platelets |" not in text


def test_the_splits_have_their_numbers_of_objects() -> None:
    text = as_markdown(detection_report())
    assert "| test | 5,000 | 945 |" in text
    assert "2 images without objects; 3 objects dropped" in text


def test_the_page_draws_precision_and_recall() -> None:
    classifier, detector = as_html(sample_report()), as_html(detection_report())
    assert detector.count("<svg") == classifier.count("<svg") + 1
    assert "recall" in detector


def test_the_page_of_test_images_is_named_if_it_exists() -> None:
    report = detection_report()
    assert "detections.html" not in as_markdown(report)
    page = {**report["artifacts"][0], "path": "accuracy/detections.html"}
    report["artifacts"].append(page)
    assert "detections.html shows test images" in as_markdown(report)


def test_headline_and_card_name_map() -> None:
    summary = summarize(detection_report())
    assert "0.75 points of mAP@0.5 (81.50% to 80.75%)" in summary.headline
    assert any(card.title == "mAP@0.5, INT8 minus FP32" for card in summary.cards)
    assert "mAP@0.5" in on_terminal(detection_report(), 80)


def test_a_drop_without_an_interval_is_shown() -> None:
    report = detection_report()
    report["accuracy"]["paired"] = drop(0.75)
    schema_check.validate(report)
    assert "too few images" in as_markdown(report)


def test_a_map_above_100_is_a_fault_with_its_pointer() -> None:
    report = detection_report()
    report["accuracy"]["int8"]["map"] = 101
    with pytest.raises(OutputError, match="/accuracy/int8/map: 101 is greater"):
        schema_check.validate(report)
    report = detection_report()
    report["accuracy"]["paired"]["map_drop_interval"] = [2.0, 1.0]
    with pytest.raises(OutputError, match="/accuracy/paired/map_drop_interval"):
        schema_check.validate(report)


def test_outputs_are_judged_by_their_signal_to_noise_ratio() -> None:
    report = outputs_report()
    schema_check.validate(report)
    assert "24.2 dB" in summarize(report).headline
    text = as_markdown(report)
    assert "| INT8 | 24.25 |" in text
    assert "Table I." not in text
    assert "24.25" in on_terminal(report, 80)
    assert as_html(report)


def test_every_task_of_the_manifest_has_a_view_and_its_gate() -> None:
    tasks = schema()["properties"]["task"]["enum"]
    assert list(VIEWS) == tasks
    gates = schema()["properties"]["gates"]["properties"]
    assert {view.gate.name for view in VIEWS.values()} <= gates.keys()
    assert {task: view.gate.name for task, view in VIEWS.items()} == GATES


@pytest.mark.parametrize(
    ("gate", "limit", "passed"),
    [
        (DETECTION.gate, 0.75, True),
        (DETECTION.gate, 0.7, False),
        (OUTPUTS.gate, 24.25, True),
        (OUTPUTS.gate, 24.5, False),
    ],
)
def test_a_gate_reads_its_value_and_knows_its_direction(
    gate: TaskGate, limit: float, passed: bool
) -> None:
    value = gate.measured(detection_report()["accuracy"])
    assert gate.passed(limit, value) is passed
