"""Random objects and detections, with all cases that decide a metric."""

from dataclasses import dataclass

import numpy as np

from job.detection.annotations import Annotations, Detections


@dataclass(frozen=True)
class RandomSet:
    """Objects and detections of some images."""

    annotations: list[Annotations]
    detections: list[Detections]
    classes: int


def random_set(seed: int) -> RandomSet:
    """Return a set; an odd seed gives whole coordinates and many equal scores and IoUs."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 5))
    images = int(rng.integers(1, 9))
    side = float(rng.choice([40, 160, 500]))
    whole = bool(seed % 2)
    annotations, detections = [], []
    for _ in range(images):
        objects = _objects(rng, int(rng.choice([0, 1, 3, 12])), classes, side, whole)
        annotations.append(objects)
        detections.append(_detections(rng, objects, classes, side, whole))
    return RandomSet(annotations, detections, classes)


def _objects(
    rng: np.random.Generator, count: int, classes: int, side: float, whole: bool
) -> Annotations:
    low = rng.uniform(0, side, (count, 2))
    boxes = np.hstack([low, low + rng.uniform(1, side, (count, 2))])
    if whole:
        boxes = np.rint(boxes)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    box_area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    area = np.where(rng.random(count) < 0.2, rng.choice([32.0**2, 96.0**2], count), box_area)
    return Annotations.of(
        boxes,
        rng.integers(0, classes, count),
        difficult=rng.random(count) < 0.2,
        crowd=rng.random(count) < 0.15,
        area=np.where(rng.random(count) < 0.3, area * 0.5, area),
    )


def _detections(
    rng: np.random.Generator, objects: Annotations, classes: int, side: float, whole: bool
) -> Detections:
    """Moved objects, equal objects, and boxes at random; now and then more than 100 of them."""
    repeats = int(rng.choice([0, 1, 2, 40], p=[0.1, 0.4, 0.45, 0.05]))
    moved = np.repeat(objects.boxes, repeats, axis=0)
    labels = np.repeat(objects.classes, repeats)
    moved = moved + rng.normal(0, 0.1, moved.shape) * rng.choice([0, 1], (len(moved), 1)) * side / 4
    other = _objects(rng, int(rng.integers(0, 6)), classes, side, whole)
    boxes = np.concatenate([moved, other.boxes])
    labels = np.concatenate([labels, other.classes])
    labels = np.where(rng.random(len(labels)) < 0.1, rng.integers(0, classes, len(labels)), labels)
    scores = rng.random(len(boxes))
    if whole:
        boxes, scores = np.rint(boxes), np.rint(scores * 5) / 5
    order = rng.permutation(len(boxes))
    return Detections.of(boxes[order], scores[order], labels[order])
