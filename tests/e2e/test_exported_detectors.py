"""Exported detectors on the command line: decoding and NMS inside, outside, and other inputs."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detectors
from PIL import Image
from tiny_run import Run, changed, job, record_of, report_of, run_json, write_manifest

from job.process.environment import environment

pytestmark = pytest.mark.e2e

LEGACY, PIR = "0", "1"
SHAPE = [3, tiny_detectors.SIDE, tiny_detectors.SIDE]
POST: dict[str, Any] = {
    "model": {
        "name": None, "width": 1, "inference_model": "net",
        "classes": tiny_detectors.CLASSES, "input_shape": SHAPE,
    },
    "data": {
        "format": "synthetic", "mean": [0.5] * 3, "std": [0.5] * 3, "augment": {},
        "calibration_images": 8,
    },
    "baseline": {"train": {"max_iters": 0}},
    "quantize": {"strategy": "post"},
    "benchmark": {"rounds": 1, "min_seconds": 0.02},
}  # fmt: skip
DETECTION = {"task": "detection", "detection": {"anchors": list(tiny_detectors.ANCHORS.values())}}
# What a detector with random weights computes is no use, so its accuracy proves nothing.
OUTPUTS = {"task": "outputs"}


def export(folder: Path, *kinds: str, pir: str = LEGACY) -> None:
    """Save detectors to ``folder``/KIND in a process of its own, which reads the flag."""
    subprocess.run(
        [sys.executable, tiny_detectors.__file__, str(folder), *kinds],
        env=environment(1) | {"FLAGS_enable_pir_api": pir},
        check=True,
        capture_output=True,
    )


def write(folder: Path, net: Path, **parts: Any) -> None:
    path = write_manifest(folder, **POST)
    document = changed(json.loads(path.read_text()), **parts)
    document["model"]["inference_model"] = str(net)
    del document["train"]
    path.write_text(json.dumps(document))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(folder, "nms", "heads", "decoded", "anchor_free")
    return folder


@pytest.fixture(scope="module")
def detector(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a detector with NMS inside, whose image is the second input."""
    folder = tmp_path_factory.mktemp("run")
    write(folder, exported / "nms", **DETECTION)
    return Run(folder, run_json(folder))


def predicted(run: Run, folder: Path, *options: str) -> Sequence[dict[str, Any]]:
    """The objects that `job predict` finds in an image of 40x80 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    arguments = ("--infer-model", run.output / "int8", "--image", folder / "a.png", "--json")
    (row,) = json.loads(job("predict", *arguments, *options, cwd=folder).out)
    if "--compare" in options:
        assert row["fp32"]
    found: Sequence[dict[str, Any]] = row["answer"]
    return found


def test_the_audit_names_heads_decoding_and_nms(detector: Run) -> None:
    report = report_of(detector.output)
    heads = [each for each in report["audit"]["left_in_fp32"] if "detector" in each["reason"]]
    assert len(heads) == report["audit"]["fp32_ops"] == 3
    kinds = {each["type"]: each["count"] for each in report["audit"]["types_in_fp32"]}
    assert (kinds["yolo_box"], kinds["multiclass_nms3"]) == (3, 1)
    for name in ("fp32", "int8"):
        assert report["models"][name]["interface"]["detector"]["compared"] > 0
        assert len(report["models"][name]["interface"]["outputs"]) == 3


def test_the_deployed_model_has_the_interface_of_the_export(detector: Run) -> None:
    deploy = json.loads((detector.output / "int8/deploy.json").read_text())
    assert deploy["model"]["files"] == ["model.pdmodel", "model.pdiparams"]
    assert deploy["input"]["name"] == "image"
    assert deploy["size_inputs"] == {"im_shape": "input_size", "scale_factor": "input_over_file"}
    assert deploy["output"]["meaning"] == "boxes"
    assert len(deploy["output"]["names"]) == 3


def test_predict_prints_the_boxes_of_the_deployed_model(detector: Run, tmp_path: Path) -> None:
    found = predicted(detector, tmp_path, "--compare")
    assert found
    assert [each["score"] for each in found] == sorted((e["score"] for e in found), reverse=True)
    for each in found:
        x0, y0, x1, y1 = each["box"]
        assert 0 <= x0 <= x1 <= 79
        assert 0 <= y0 <= y1 <= 39


def test_the_python_program_agrees_with_predict(detector: Run, tmp_path: Path) -> None:
    found = predicted(detector, tmp_path)
    page = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
    program, answer = (
        re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)[0]
        for kind in ("python", "python boxes")
    )
    text = program.partition("# The answer.")[0] + answer
    command = [sys.executable, "-c", text, detector.output / "int8", tmp_path / "a.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = sorted(float(line.split()[1]) for line in done.stdout.splitlines())
    assert printed == pytest.approx(sorted(each["score"] for each in found), abs=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["heads", "decoded"])
def test_detectors_without_nms_inside(exported: Path, tmp_path: Path, kind: str) -> None:
    write(tmp_path, exported / kind, **DETECTION)
    run = Run(tmp_path, run_json(tmp_path))
    assert (run.output / "int8/network.pdmodel").exists() == (kind == "decoded")
    assert predicted(run, tmp_path)


@pytest.mark.full
def test_another_decoding_is_kept_by_task_outputs(exported: Path, tmp_path: Path) -> None:
    write(tmp_path, exported / "anchor_free", **OUTPUTS)
    # With random weights, INT8 can miss the gate of agreement with the fake-quantized model.
    assert run_json(tmp_path, "--until", "int8", expect=None).code in (0, 3)
    record = record_of(tmp_path / "out", "int8")
    detector = record["interfaces"]["int8"]["detector"]
    assert detector["inputs"] == ["image", "scale_factor"]
    assert detector["compared"] > 0
    kinds = {each["type"]: each["count"] for each in record["types_in_fp32"]}
    assert kinds["multiclass_nms3"] == 1


@pytest.mark.full
def test_a_detector_of_paddle_3(tmp_path: Path) -> None:
    export(tmp_path, "nms", "anchor_free", pir=PIR)
    write(tmp_path, tmp_path / "anchor_free", **DETECTION)
    assert "multiclass_nms3" in job("validate", "m.json", cwd=tmp_path, expect=4).err
    write(tmp_path, tmp_path / "nms", **DETECTION)
    run = Run(tmp_path, run_json(tmp_path))
    assert predicted(run, tmp_path)


@pytest.mark.parametrize(
    ("kind", "parts", "named"),
    [
        ("anchor_free", {}, "multiclass_nms3"),
        ("nms", {"detection": {"anchors": [[[8, 11]], [[20, 30], [30, 20]], [[50, 60]]]}}, "8, 11"),
        ("nms", {"model": {"classes": 4}}, "3 classes"),
        ("heads", {"model": {"classes": 4}}, "channels"),
    ],
)
def test_a_detector_that_does_not_fit_is_rejected_before_any_stage(
    exported: Path, tmp_path: Path, kind: str, parts: dict[str, Any], named: str
) -> None:
    write(tmp_path, exported / kind, **changed(DETECTION, **parts))
    done = job("run", "m.json", "--dry-run", cwd=tmp_path, expect=4)
    assert named in done.err
    assert not (tmp_path / "out").exists()
