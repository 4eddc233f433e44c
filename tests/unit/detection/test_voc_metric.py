"""VOC mAP compared with a port of the devkit's Matlab code, line by line."""

import math

import numpy as np
import pytest
from random_detections import RandomSet, random_set
from tiers import cases

from job.detection import voc_metric
from job.detection.annotations import Annotations, Detections

# MATLAB's 0:0.1:1, computed from both ends.
ELEVEN = [0, 0.1, 0.2, 3 * 0.1, 0.4, 0.5, 1 - 0.4, 1 - 3 * 0.1, 1 - 0.2, 1 - 0.1, 1]


def devkit_curve(given: RandomSet, label: int) -> tuple[list[float], list[float], int]:
    """VOCevaldet.m: recall and precision of each detection, and npos; corners are pixels."""
    npos = 0
    truth = []
    for objects in given.annotations:
        members = [k for k in range(len(objects)) if objects.classes[k] == label]
        boxes = [pixels(objects.boxes[k]) for k in members]
        difficult = [bool(objects.difficult[k] or objects.crowd[k]) for k in members]
        truth.append((boxes, difficult, [False] * len(members)))
        npos += difficult.count(False)
    found = [
        (float(each.scores[k]), image, pixels(each.boxes[k]))
        for image, each in enumerate(given.detections)
        for k in range(len(each))
        if each.classes[k] == label
    ]
    found.sort(key=lambda each: -each[0])
    tp, fp = [0] * len(found), [0] * len(found)
    for d, (_, image, bb) in enumerate(found):
        boxes, difficult, taken = truth[image]
        ovmax, jmax = -math.inf, -1
        for j, bbgt in enumerate(boxes):
            iw = min(bb[2], bbgt[2]) - max(bb[0], bbgt[0]) + 1
            ih = min(bb[3], bbgt[3]) - max(bb[1], bbgt[1]) + 1
            if iw > 0 and ih > 0:
                ua = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1)
                ua += (bbgt[2] - bbgt[0] + 1) * (bbgt[3] - bbgt[1] + 1) - iw * ih
                if iw * ih / ua > ovmax:
                    ovmax, jmax = iw * ih / ua, j
        if ovmax >= 0.5:
            if not difficult[jmax]:
                if not taken[jmax]:
                    tp[d] = 1
                    taken[jmax] = True
                else:
                    fp[d] = 1
        else:
            fp[d] = 1
    right, wrong = np.cumsum(tp), np.cumsum(fp)
    if npos == 0:
        return [], [], 0
    with np.errstate(invalid="ignore"):
        return (right / npos).tolist(), (right / (wrong + right)).tolist(), npos


def pixels(box: np.ndarray) -> tuple[float, ...]:
    """Corners as pixels counted from 1, both inside the box."""
    x0, y0, x1, y1 = box.tolist()
    return x0 + 1, y0 + 1, x1, y1


def eleven(rec: list[float], prec: list[float]) -> float:
    """The end of VOCevaldet.m, devkit of 2007."""
    ap = 0.0
    for t in ELEVEN:
        above = [p for r, p in zip(rec, prec, strict=True) if r >= t and not math.isnan(p)]
        ap += max(above, default=0.0) / 11
    return ap


def voc_ap(rec: list[float], prec: list[float]) -> float:
    """VOCap.m, devkits of 2010 to 2012; max of Matlab ignores NaN."""
    mrec = [0.0, *rec, 1.0]
    mpre = [0.0, *(0.0 if math.isnan(p) else p for p in prec), 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum(
        (mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1]
    )


def compare(given: RandomSet, name: str) -> None:
    found = voc_metric.rankings(given.annotations, given.detections, given.classes)
    curves = [devkit_curve(given, label) for label in range(given.classes)]
    for definition, port in (("area", voc_ap), ("11-point", eleven)):
        score = voc_metric.score(found, definition)
        expected = [100 * port(rec, prec) if npos else None for rec, prec, npos in curves]
        assert score.class_ap == pytest.approx(expected, abs=1e-7), f"{name}, {definition}"
        known = [value for value in expected if value is not None]
        mean = sum(known) / len(known) if known else None
        assert score.mean_ap == pytest.approx(mean, abs=1e-7), f"{name}, {definition}"


@pytest.mark.parametrize("block", range(10))
def test_equal_to_the_devkit(block):
    count = cases(1000) // 10
    for seed in range(block * count, (block + 1) * count):
        compare(random_set(seed), f"seed {seed}")


def one_class(objects: Annotations, found: list[tuple[tuple[float, ...], float]]) -> RandomSet:
    boxes, scores = [box for box, _ in found], [score for _, score in found]
    return RandomSet([objects], [Detections.of(boxes, scores, [0] * len(found))], 1)


def mean_ap(given: RandomSet, definition: str = "area") -> float | None:
    found = voc_metric.rankings(given.annotations, given.detections, given.classes)
    return voc_metric.score(found, definition).mean_ap


def test_an_iou_of_one_half_is_enough():
    """PaddleDetection requires more than 0.5."""
    objects = Annotations.of([[0, 0, 10, 10]], [0])
    assert mean_ap(one_class(objects, [((0, 0, 10, 5), 1)])) == 100
    assert mean_ap(one_class(objects, [((0, 0, 10, 4.99), 1)])) == 0


def test_a_second_detection_of_an_object_is_false():
    objects = Annotations.of([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])
    twice = [((0, 0, 10, 10), 0.9), ((0, 0, 10, 9), 0.8), ((50, 50, 60, 60), 0.7)]
    assert mean_ap(one_class(objects, twice)) == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_detections_of_difficult_objects_do_not_count():
    objects = Annotations.of([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0], difficult=[True, False])
    found = [((0, 0, 10, 10), 0.9), ((0, 0, 10, 9), 0.8), ((50, 50, 60, 60), 0.7)]
    assert mean_ap(one_class(objects, found)) == 100


def test_eleven_points_count_a_recall_of_exactly_six_tenths():
    """6 of 10 objects found: the recalls 0 to 0.6 have precision 1."""
    corners = [(20.0 * k, 0.0, 20.0 * k + 10, 10.0) for k in range(10)]
    objects = Annotations.of(corners, [0] * 10)
    for right in (3, 6, 7):
        found = [(box, 0.5) for box in corners[:right]]
        assert mean_ap(one_class(objects, found), "11-point") == pytest.approx(
            100 * (right + (right != 3)) / 11
        )


def test_classes_without_objects_are_not_in_the_mean():
    objects = Annotations.of([[0, 0, 10, 10], [0, 0, 10, 10]], [1, 2], difficult=[False, True])
    found = Detections.of([[0, 0, 10, 10]] * 3, [1, 1, 1], [0, 1, 2])
    score = voc_metric.score(voc_metric.rankings([objects], [found], 4))
    assert score.class_ap == (None, 100, None, None)
    assert score.mean_ap == 100


def test_no_objects_at_all():
    assert mean_ap(one_class(Annotations.none(), [((0, 0, 1, 1), 1)])) is None
    assert voc_metric.score(voc_metric.rankings([], [], 2)).mean_ap is None


def test_numbers_of_images_must_agree():
    with pytest.raises(ValueError, match="1 images, found 0"):
        voc_metric.rankings([Annotations.none()], [], 1)
