"""The settings that a stage's cache key depends on."""

import json
from pathlib import Path

import pytest

from job.manifest.load import load
from job.manifest.spec import Manifest
from job.stages import STAGES

TRAINS, SCORES = {"baseline", "qat"}, {"accuracy"}


def differing(one: Manifest, other: Manifest) -> set[str]:
    """The stages whose settings differ."""
    return {stage.name for stage in STAGES if stage.settings(one) != stage.settings(other)}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("detection.anchors=[[[9,9]],[[30,30]],[[90,90]]]", TRAINS | SCORES),
        ("detection.augment.crop=0.5", TRAINS),
        ("detection.nms_threshold=0.6", TRAINS | SCORES),
        ('detection.class_names=["0","1","2","3","4","5","6","7","9","8"]',
         TRAINS | SCORES | {"prepare"}),
    ],
)  # fmt: skip
def test_a_changed_detector_is_trained_again(change: str, stages: set[str]) -> None:
    assert differing(load("detection-digits"), load("detection-digits", [change])) == stages


def test_a_detector_without_training_depends_on_its_anchors() -> None:
    untrained = ["baseline.train.max_iters=0", "train.max_iters=0"]
    one = load("detection-digits", untrained)
    changed = "detection.anchors=[[[9,9]],[[30,30]],[[90,90]]]"
    assert differing(one, load("detection-digits", [*untrained, changed])) == {
        "baseline", "accuracy",
    }  # fmt: skip
    augmented = load("detection-digits", [*untrained, "detection.augment.crop=0.5"])
    assert differing(one, augmented) == set()


def test_another_task_is_another_result(tmp_path: Path) -> None:
    document = {
        "version": 1,
        "name": "tiny",
        "model": {"inference_model": "net", "classes": 2, "input_shape": [3, 32, 32]},
        "data": {"format": "packed", "val_file": "a.bin"},
        "quantize": {"strategy": "post"},
    }
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    found = differing(load(str(path), ["task=classification"]), load(str(path), ["task=outputs"]))
    assert found >= {"baseline", "calibrate", "convert", "int8", "accuracy"}
