import copy
from typing import Any

import pytest
from sample_manifest import check, document, faults

DETECTION: dict[str, Any] = {
    "task": "detection",
    "model": {"name": "yolov3_mobilenet_v1", "classes": 20, "input_shape": [3, 416, 416]},
    "data": {"format": "voc", "train_list": "ImageSets/Main/trainval.txt"},
}
SCENES: dict[str, Any] = {
    "task": "detection",
    "model": {"name": "yolov3_mobilenet_v1", "classes": 10, "input_shape": [3, 96, 96]},
    "data": {"format": "digit_scenes"},
}
OUTPUTS: dict[str, Any] = {
    "task": "outputs",
    "model": {"inference_model": "ocr", "input_shape": [3, 64, 64]},
    "data": {"format": "images", "val_dir": "photos"},
    "quantize": {"strategy": "post"},
}


def of(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return document(**{**copy.deepcopy(base), **changes})


def test_classification_is_the_default_task() -> None:
    manifest = check(document())
    assert manifest.task == "classification"
    assert manifest.resolved["task"] == "classification"


def test_a_detection_manifest_has_anchors_of_three_heads() -> None:
    manifest = check(of(DETECTION))
    assert [len(head) for head in manifest.detection.anchors] == [3, 3, 3]
    assert manifest.detection.anchors[0][0] == (10, 13)
    assert manifest.detection.class_names is None
    assert manifest.gates.max_map_drop == 1.0
    assert hash(manifest.detection) == hash(check(of(DETECTION)).detection)


def test_a_detector_trains_with_labels() -> None:
    assert check(of(DETECTION)).train.used_loss == "labels"


def test_one_class_is_enough_for_detection() -> None:
    assert check(of(DETECTION, model__classes=1)).model.classes == 1


def test_outputs_needs_no_classes_and_no_labels() -> None:
    manifest = check(of(OUTPUTS))
    assert (manifest.model.classes, manifest.data.val_dir) == (1, "photos")


def test_coco_has_a_json_file_and_a_folder() -> None:
    data = {"format": "coco", "train_list": "instances.json", "train_dir": "train2017"}
    assert check(of(DETECTION | {"data": data})).data.train_dir == "train2017"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (of(DETECTION, model__name="resnet50"), "/model/name"),
        (of(DETECTION | {"task": "classification"}), "/task"),
        (document(model__classes=1), "/model/classes"),
        (of(DETECTION, model__input_shape=[3, 400, 416]), "/model/input_shape"),
        (of(DETECTION, data={"format": "digits"}), "/data/format"),
        (document(data={"format": "voc", "train_list": "l"}), "/data/format"),
        (of(DETECTION, data={"format": "voc", "train_dir": "d"}), "/data/train_dir"),
        (of(DETECTION, data={"format": "coco", "train_dir": "d"}), "/data"),
        (of(SCENES, data__root="r"), "/data/root"),
        (of(SCENES, model__classes=9), "/model/classes"),
        (of(DETECTION, data__resize_short=512), "/data/resize_short"),
        (of(DETECTION, train={"label_smoothing": 0.1}), "/train/label_smoothing"),
        (
            of(DETECTION, baseline={"train": {"label_smoothing": 0.1}}),
            "/baseline/train/label_smoothing",
        ),
        (of(DETECTION, train={"loss": "distill"}), "/train/loss"),
        (of(DETECTION, quantize={"fallback": {"max_top1_drop": 0.3}}), "/quantize/fallback"),
        (of(DETECTION, gates={"max_top1_drop": 0.5}), "/gates/max_top1_drop"),
        (document(gates={"max_map_drop": 0.5}), "/gates/max_map_drop"),
        (of(DETECTION, gates={"int8_matches_fp32": 20}), "/gates/int8_matches_fp32"),
        (of(DETECTION, detection={"class_names": ["cat"]}), "/detection/class_names"),
        (of(DETECTION, detection={"anchors": [[[10, 13]], [[30, 61]]]}), "/detection/anchors"),
        (of(DETECTION, detection={"anchors": [[[0, 13]]] * 3}), "/detection/anchors/0/0/0"),
        (of(DETECTION, detection={"augment": {"sizes": [320, 350]}}), "/detection/augment/sizes"),
        (
            of(
                DETECTION, model__input_shape=[3, 416, 320], detection={"augment": {"sizes": [320]}}
            ),
            "/detection/augment/sizes",
        ),
        (of(OUTPUTS, quantize={"strategy": "aware"}), "/quantize/strategy"),
        (of(OUTPUTS, baseline={"train": {"epochs": 1}}), "/baseline/train/epochs"),
        (of(OUTPUTS, baseline={"train": {"max_iters": 9}}), "/baseline/train/max_iters"),
        (of(OUTPUTS, model__name="resnet50"), "/model/name"),
    ],
)
def test_a_fault_of_a_task_has_its_pointer(body: Any, pointer: str) -> None:
    assert pointer in faults(body)


def test_a_gate_of_another_task_is_named_with_the_right_one() -> None:
    fault = faults(of(DETECTION, gates={"max_top1_drop": 0.5}))["/gates/max_top1_drop"]
    assert fault.suggestion == "max_map_drop"
