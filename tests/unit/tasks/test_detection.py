from typing import Any

import numpy as np
import pytest

from job.detection.annotations import Annotations
from job.detection.decode import Head, Selection
from job.errors import DataError
from job.tasks import detection
from job.tasks.task import Outputs, Results, Scored, flat

SIZE, CLASSES = (32, 32), 3
HEADS = (Head(16, ((16.0, 16.0),)), Head(8, ((8.0, 8.0),)))
TASK = detection.detection_task(HEADS, size=SIZE, classes=CLASSES, settings=Selection())
# Class and cell of the stride-8 head of one object per image.
PLACES = [(0, (1, 2)), (1, (3, 0)), (2, (0, 3)), (0, (2, 2)), (1, (0, 0)), (2, (3, 3))]


def objects() -> list[Annotations]:
    return [
        Annotations.of([[8 * col, 8 * row, 8 * col + 8, 8 * row + 8]], [label])
        for label, (row, col) in PLACES
    ]


def outputs(missed: int = 0) -> Outputs:
    """Outputs that find all objects except those of the first images."""
    coarse = np.full((len(PLACES), 5 + CLASSES, 2, 2), -10, np.float32)
    fine = np.full((len(PLACES), 5 + CLASSES, 4, 4), -10, np.float32)
    for image, (label, (row, col)) in enumerate(PLACES):
        if image >= missed:
            fine[image, :4, row, col] = 0
            fine[image, [4, 5 + label], row, col] = 10
    return coarse, fine


def found(missed: dict[str, int], batch: int = len(PLACES)) -> dict[str, Results]:
    merged = {}
    for name, count in missed.items():
        parts = [
            TASK.results(
                tuple(each[first : first + batch] for each in outputs(count)),
                objects()[first : first + batch],
                tuple(each[first : first + batch] for each in outputs()),
            )
            for first in range(0, len(PLACES), batch)
        ]
        merged[name] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return merged


def record(missed: dict[str, int], batch: int = len(PLACES)) -> dict[str, Any]:
    return TASK.accuracy(found(missed, batch), objects())


def test_a_model_is_as_good_as_the_objects_that_it_finds() -> None:
    rows = record({"fp32": 0, "qat_fake": 0, "int8": 3, "openvino": 1})
    assert rows["fp32"]["map"] == pytest.approx(100)
    # The first three images have one object of each class, half of all.
    assert rows["int8"]["map"] == pytest.approx(50)
    assert rows["int8"]["class_ap"] == pytest.approx([50, 50, 50])
    assert rows["paired"]["map_drop"] == pytest.approx(50)
    low, high = rows["paired"]["map_drop_interval"]
    assert 0 <= low < 50 < high <= 100
    assert rows["paired_fake"] == {"map_drop": 0, "map_drop_interval": [0, 0]}
    assert rows["engines"].keys() == {"openvino"}
    assert rows["closeness"]["qat_fake"]["signal_to_noise_db"] == 200
    assert rows["closeness"]["int8"]["signal_to_noise_db"] < 30


def test_the_record_does_not_depend_on_the_size_of_batches() -> None:
    missed = {"fp32": 0, "qat_fake": 1, "int8": 2}
    assert record(missed, batch=4) == record(missed)


def test_predictions_contain_the_detections_of_each_model() -> None:
    arrays = TASK.predictions(found({"fp32": 0, "int8": 2}), objects())
    assert arrays["fp32.counts"].tolist() == [1, 1, 1, 1, 1, 1]
    assert arrays["int8.counts"].tolist() == [0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(
        arrays["fp32.boxes"][:3], [each.boxes[0] for each in objects()[:3]], atol=1.0
    )


def test_map_needs_objects() -> None:
    nothing = [Annotations.none()] * len(PLACES)
    with pytest.raises(DataError, match="mAP"):
        TASK.accuracy(found({"fp32": 0, "qat_fake": 0, "int8": 0}), nothing)


def test_an_evaluation_during_training_is_that_of_the_saved_model() -> None:
    batches = [
        Scored(
            tuple(each[first : first + 4] for each in outputs(3)),
            objects()[first : first + 4],
            flat(outputs())[first : first + 4],
        )
        for first in (0, 4)
    ]
    values = TASK.evaluate(batches)
    rows = record({"fp32": 0, "qat_fake": 0, "int8": 3})
    assert values["map"] == pytest.approx(rows["int8"]["map"])
    ratio = rows["closeness"]["int8"]["signal_to_noise_db"]
    assert values["signal_to_noise_db"] == pytest.approx(ratio)
    assert TASK.agreement(outputs(3), outputs()).signal_to_noise_db == pytest.approx(ratio)


def test_a_detector_that_finds_nothing_cannot_be_compared() -> None:
    rows = record({"fp32": len(PLACES), "qat_fake": 0, "int8": 0})
    assert TASK.not_judged(rows, CLASSES)
    assert not TASK.not_judged(record({"fp32": 0, "qat_fake": 0, "int8": 0}), CLASSES)
