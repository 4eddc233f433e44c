"""COCO AP compared with pycocotools on random sets."""

import dataclasses

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_detections import RandomSet, random_set
from tiers import cases

from job.detection import coco_metric
from job.detection.annotations import Annotations, Detections

# Category ids with gaps, and image ids that start at 1: pycocotools takes an id of 0 for no match.
FIRST_ID, STEP = 3, 7


def reference(given: RandomSet, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """Return the twelve figures of pycocotools; -1 without objects."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number + 1} for number in range(len(given.annotations))],
        "categories": [{"id": FIRST_ID + STEP * label} for label in range(given.classes)],
        "annotations": [
            {
                "image_id": number + 1,
                "category_id": FIRST_ID + STEP * int(objects.classes[k]),
                "bbox": corner_and_sides(objects.boxes[k]),
                "area": float(objects.area[k]),
                "iscrowd": int(objects.crowd[k]),
            }
            for number, objects in enumerate(given.annotations)
            for k in range(len(objects))
        ],
    }
    for number, each in enumerate(truth.dataset["annotations"]):
        each["id"] = number + 1
    truth.createIndex()
    results = [
        {
            "image_id": number + 1,
            "category_id": FIRST_ID + STEP * int(found.classes[k]),
            "bbox": corner_and_sides(found.boxes[k]),
            "score": float(found.scores[k]),
        }
        for number, found in enumerate(given.detections)
        for k in range(len(found))
    ]
    evaluation = COCOeval(truth, truth.loadRes(results) if results else COCO(), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    return [float(value) for value in evaluation.stats]


def corner_and_sides(box: np.ndarray) -> list[float]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def ours(given: RandomSet) -> list[float]:
    matches = coco_metric.match(given.annotations, given.detections, given.classes)
    figures = dataclasses.astuple(coco_metric.score(matches))
    return [-1 if value is None else value / 100 for value in figures]


@pytest.mark.parametrize("block", range(10))
def test_equal_to_pycocotools(block, capsys):
    count = cases(1000) // 10
    for seed in range(block * count, (block + 1) * count):
        given = random_set(seed)
        expected = reference(given, capsys)
        assert ours(given) == pytest.approx(expected, abs=1e-9), f"seed {seed}"


def test_random_sets_cover_the_rules():
    """Crowds, equal scores, more than 100 detections, and each range of areas."""
    sets = [random_set(seed) for seed in range(100)]
    figures = np.array([ours(given) for given in sets])
    assert ((figures > 0) & (figures < 1)).any(axis=0).all()
    assert (figures == -1).any()
    assert any(objects.crowd.any() for given in sets for objects in given.annotations)
    for given in sets:
        if max(np.bincount(found.classes).max(initial=0) for found in given.detections) > 100:
            break
    else:
        pytest.fail("no image with more than 100 detections of a class")


def test_images_without_objects_and_without_detections():
    nothing = Detections.of([], [], [])
    empty = RandomSet([Annotations.none()] * 2, [nothing] * 2, 3)
    assert ours(empty) == [-1] * 12
    one = RandomSet([Annotations.of([[0, 0, 9, 9]], [1])], [nothing], 3)
    assert ours(one) == [0, 0, 0, 0, -1, -1, 0, 0, 0, 0, -1, -1]


def test_numbers_of_images_must_agree():
    with pytest.raises(ValueError, match="2 images, found 1"):
        coco_metric.match([Annotations.none()] * 2, [Detections.of([], [], [])], 1)
