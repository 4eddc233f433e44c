"""Mean average precision of Pascal VOC, as defined by the devkit (``VOCevaldet.m``).

A detection belongs to the object of its class and image with the highest IoU, the first one of
several. If this IoU is at least 0.5, the detection is right, but only the most certain detection of
each object. If the object is difficult, its detections do not count. All other detections are
false. The devkit's IoU adds a pixel to each side, because its corners are pixels. Here, corners are
edges (``job.detection.boxes``), so the same IoU has no added pixel.

Two other definitions are not used. PaddleDetection's ``map_type`` requires an IoU above 0.5 and has
no precision envelope, and COCO's AP50 reads the precision at 101 recalls. Crowds, which VOC does
not have, count as difficult.

The devkit does not define the order of equal scores. Here it is the order of images, then of the
detections in their image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from job.detection import boxes
from job.detection.annotations import Annotations, Bools, Detections, Ints
from job.detection.precision_recall import (
    Average,
    Ranking,
    area,
    average_precisions,
    eleven_points,
    mean,
)

MIN_IOU = 0.5
AVERAGES: dict[Literal["area", "11-point"], Average] = {"area": area, "11-point": eleven_points}


@dataclass(frozen=True)
class VocScore:
    """VOC's mean average precision.

    Attributes:
        mean_ap: mAP in percent over the classes that have objects; None if no class has objects.
        class_ap: average precision of each class in percent; None for a class without objects.
            Difficult objects do not count.
    """

    mean_ap: float | None
    class_ap: tuple[float | None, ...]


def rankings(
    annotations: Sequence[Annotations], detections: Sequence[Detections], classes: int
) -> tuple[Ranking, ...]:
    """Match the detections of all images and return one ranking per class.

    Args:
        annotations: the objects of each image.
        detections: the detections in each image, in the same order.
        classes: number of classes; each class of an object or a detection is less.

    Raises:
        ValueError: the numbers of images differ.
    """
    if len(annotations) != len(detections):
        raise ValueError(
            f"expected detections of {len(annotations)} images, found {len(detections)}"
        )
    matches = [_match(*pair) for pair in zip(annotations, detections, strict=True)]
    counts = [len(each) for each in detections]
    images = np.repeat(np.arange(len(detections)), counts)
    scores = np.concatenate([np.zeros(0), *(each.scores for each in detections)])
    labels = np.concatenate([np.zeros(0, np.int64), *(each.classes for each in detections)])
    right = np.concatenate([np.zeros(0, np.bool_), *(right for right, _ in matches)])
    counted = np.concatenate([np.zeros(0, np.bool_), *(counted for _, counted in matches)])
    positives = _positives(annotations, classes)
    found = []
    for label in range(classes):
        members = np.flatnonzero(counted & (labels == label))
        order = members[np.argsort(-scores[members], kind="stable")]
        found.append(Ranking(images[order], scores[order], right[order], positives[label]))
    return tuple(found)


def score(found: Sequence[Ranking], definition: Literal["area", "11-point"] = "area") -> VocScore:
    """Return the mean average precision of rankings.

    Args:
        found: see ``rankings``.
        definition: ``area`` as from VOC2010 on, ``11-point`` as in VOC2007.
    """
    values = average_precisions(found, AVERAGES[definition])
    return VocScore(
        mean(values), tuple(None if np.isnan(value) else 100 * float(value) for value in values)
    )


def _positives(annotations: Sequence[Annotations], classes: int) -> Ints:
    """Return the number of objects to find, ``[classes, images]``."""
    counts = np.zeros((classes, len(annotations)), np.int64)
    for image, objects in enumerate(annotations):
        np.add.at(counts[:, image], objects.classes[~(objects.difficult | objects.crowd)], 1)
    return counts


def _match(objects: Annotations, found: Detections) -> tuple[Bools, Bools]:
    """Return for each detection of an image whether it is right, and whether it counts."""
    right = np.zeros(len(found), np.bool_)
    counted = np.ones(len(found), np.bool_)
    if not len(found) or not len(objects):
        return right, counted
    overlap = boxes.iou(found.boxes, objects.boxes)
    overlap[found.classes[:, None] != objects.classes[None, :]] = -1
    best = np.argmax(overlap, axis=1)
    matched = np.take_along_axis(overlap, best[:, None], axis=1)[:, 0] >= MIN_IOU
    difficult = matched & (objects.difficult | objects.crowd)[best]
    counted[difficult] = False
    order = np.argsort(-found.scores, kind="stable")
    order = order[(matched & ~difficult)[order]]
    _, first = np.unique(best[order], return_index=True)
    right[order[first]] = True
    return right, counted
