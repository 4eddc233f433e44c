"""deploy.json of each model, and the table of accuracy by class."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sample_report import as_html, as_markdown, benchmark_entry, engine_entry, sample_report

from job.errors import DataError, OutputError
from job.pipeline.report_files import render_files, write
from job.predict.deployed import read_deploy
from job.report.deploy import deploy_records
from job.report.render import schema_check
from job.report.run.use_it import use_sections

INTERFACE = {"input": "image", "output": "scores", "probabilities": False}


def report_with_interfaces() -> dict[str, Any]:
    report = sample_report()
    for name in ("fp32", "int8"):
        report["models"][name]["interface"] = dict(INTERFACE)
    report["data"] |= {"class_names": [f"kind {n}" for n in range(10)], "normalised": False}
    report["manifest"]["data"] |= {"resize_short": None, "mean": [0.5], "std": [0.25]}
    return report


def test_each_model_has_a_record_but_the_fake_quantized() -> None:
    report = report_with_interfaces()
    report["models"]["openvino"] = {"path": "x", "bytes": 9, "interface": INTERFACE}
    report["versions"]["openvino"] = "2025.0"
    report["benchmark"][0]["engines"]["openvino"] = engine_entry("openvino", 1, 503.0, 900.0)
    records = deploy_records(report)
    assert set(records) == {"fp32", "int8", "int8_openvino"}
    for record in records.values():
        schema_check.validate_deploy(record)
    assert records["int8_openvino"]["model"]["load"] is None
    assert records["int8"]["class_names"][3] == "kind 3"
    assert records["int8"]["input"]["shape"] == [None, 3, 32, 32]


def test_the_best_setting_is_from_the_benchmark() -> None:
    report = report_with_interfaces()
    int8 = deploy_records(report)["int8"]
    assert int8["measured"]["throughput"]["batch_size"] == 50
    assert int8["measured"]["latency"]["batch_size"] == 1
    assert int8["fastest"]["throughput"]["folder"] == "int8"
    report["benchmark"] = [benchmark_entry(1, 900.0, 700.0)]
    slower = deploy_records(report)["int8"]
    assert slower["fastest"]["throughput"]["folder"] == "fp32"
    assert slower["measured"]["throughput"]["folder"] == "int8"


def test_a_detector_has_its_heads_in_the_order_of_the_outputs() -> None:
    report = report_with_interfaces()
    outputs = ["coarse", "middle", "fine"]
    for name in ("fp32", "int8"):
        report["models"][name]["interface"] |= {"output": "coarse", "outputs": outputs}
    anchors = [[[10, 13]], [[30, 61], [62, 45]], [[116, 90]]]
    spec = {"anchors": anchors, "score_threshold": 0.01, "nms_threshold": 0.45}
    report["manifest"] |= {"task": "detection", "detection": spec}
    record = deploy_records(report)["int8"]
    schema_check.validate_deploy(record)
    assert record["output"]["names"] == outputs
    assert record["output"]["meaning"] == "heads"
    heads = [(head["stride"], head["anchors"]) for head in record["detection"]["heads"]]
    assert heads == [(32, anchors[2]), (16, anchors[1]), (8, anchors[0])]


@pytest.mark.parametrize("boxes", ["found", None])
def test_a_detector_that_decodes_has_the_interface_of_its_export(boxes: str | None) -> None:
    report = report_with_interfaces()
    detector = {
        "inputs": ["im_shape", "picture"], "outputs": ["count", "found"], "boxes": boxes,
        "counts": "count", "batch": 1, "compared": 3,
    }  # fmt: skip
    for name in ("fp32", "int8"):
        report["models"][name]["interface"]["detector"] = detector
    report["manifest"] |= {"task": "outputs"}
    schema_check.validate(report)
    record = deploy_records(report)["int8"]
    schema_check.validate_deploy(record)
    assert (record["input"]["name"], record["input"]["shape"][0]) == ("picture", 1)
    assert record["size_inputs"] == {"im_shape": "input_size"}
    assert record["output"]["names"] == ["count", "found"]
    assert record["output"]["meaning"] == ("boxes" if boxes else "other")
    assert record["output"].get("boxes") == boxes


def test_outputs_of_other_models_have_no_meaning() -> None:
    report = report_with_interfaces()
    report["manifest"] |= {"task": "outputs"}
    report["manifest"]["model"]["classes"] = 1
    report["data"]["class_names"] = None
    record = deploy_records(report)["int8"]
    schema_check.validate_deploy(record)
    assert record["output"]["meaning"] == "other"
    assert "detection" not in record


def test_the_transform_is_null_for_packed_images() -> None:
    report = report_with_interfaces()
    assert deploy_records(report)["int8"]["transform"]["channel_order"] == "RGB"
    report["data"]["normalised"] = True
    assert deploy_records(report)["int8"]["transform"] is None


def test_classes_without_names_are_numbered() -> None:
    report = report_with_interfaces()
    report["data"]["class_names"] = None
    assert deploy_records(report)["fp32"]["class_names"] == [str(n) for n in range(10)]


def test_a_report_of_an_older_version_has_no_records() -> None:
    assert deploy_records(sample_report()) == {}
    assert "deploy.json" not in " ".join(render_files(sample_report()))


def test_records_are_written_into_the_folders_of_models_only(tmp_path: Path) -> None:
    report = report_with_interfaces()
    (tmp_path / "int8").mkdir()
    report["data"]["class_names"][2] = "Größe 写真"
    write(report, tmp_path, source=tmp_path)
    text = (tmp_path / "int8/deploy.json").read_text(encoding="utf-8")
    assert json.loads(text)["name"] == report["name"]
    assert '"Größe 写真"' in text
    assert not (tmp_path / "fp32").exists()


def test_a_damaged_record_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"deploy\.json"):
        read_deploy(tmp_path)
    record = dict(deploy_records(report_with_interfaces())["int8"])
    (tmp_path / "deploy.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"model\.pdmodel"):
        read_deploy(tmp_path)
    (tmp_path / "deploy.json").write_text(json.dumps({**record, "version": 2}))
    with pytest.raises(DataError, match="/version"):
        read_deploy(tmp_path)
    with pytest.raises(OutputError):
        schema_check.validate_deploy({**record, "more": 1})


def test_the_classes_that_lose_most_come_first() -> None:
    report = report_with_interfaces()
    report["accuracy"]["per_class"] = [
        {"label": label, "images": 500, "fp32": 450, "int8": 450 - 10 * (label == 4)}
        for label in range(10)
    ]
    schema_check.validate(report)
    lines = as_markdown(report).splitlines()
    start = lines.index("### Accuracy by class")
    assert lines[start + 4] == "| kind 4 | 500 | 90.00 | 88.00 | −2.00 |"


def test_the_page_shows_what_to_deploy_and_where_it_was_measured() -> None:
    report = report_with_interfaces()
    html = as_html(report)
    assert '<a href="#part-0">Use it</a>' in html
    assert "job predict --infer-model OUTPUT/int8 --image" in html
    assert "resnet18 3×32×32" in html
    assert report["host"]["cpu_model"] in html
    assert html.count("<details>") == 2
    assert "Use it" not in as_html(sample_report())


def test_an_unstable_speed_is_marked_where_it_is_recommended() -> None:
    report = report_with_interfaces()
    for row in report["benchmark"]:
        row["stable"], row["unstable_reasons"] = False, ["other processes"]
    ((text, _),) = (section.blocks for section in use_sections(report))
    assert re.search(r"[0-9]\* images/s", text.text)
    for row in report["benchmark"]:
        row["stable"], row["unstable_reasons"] = True, []
    ((text, _),) = (section.blocks for section in use_sections(report))
    assert "*" not in text.text


def test_the_command_fits_the_data_and_the_outputs() -> None:
    report = report_with_interfaces()
    report["data"]["normalised"] = True
    assert deploy_records(report)["int8"]["transform"] is None
    ((_, code),) = (section.blocks for section in use_sections(report))
    assert "--infer-data OUTPUT/data/test.bin" in code.text
    report["manifest"]["task"] = "outputs"
    assert [len(section.blocks) for section in use_sections(report)] == [1]
