"""COCO's average precision and recall, as pycocotools computes them (``COCOeval``, iouType bbox).

Detections of an image and class are matched in the order of their scores, at most 100 of them. At
each of ten IoU thresholds, a detection takes the free object with the highest IoU of at least the
threshold, the last one of several. Without such an object it takes an ignored one: a crowd, which
many detections may take, or an object outside the range of areas. Such detections do not count, nor
do unmatched detections whose own area is outside the range. The IoU with a crowd is the share of
the detection inside the crowd.

Equal scores are in the order of images, then of the detections in their image. pycocotools orders
images by id. Difficult objects, which COCO does not have, count like other objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from job.detection import boxes
from job.detection.annotations import Annotations, Bools, Detections, Float64s, Ints, class_ranks
from job.detection.precision_recall import (
    Ranking,
    average_precisions,
    hundred_one_points,
    mean,
)

IOU_THRESHOLDS: Float64s = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100)
# Square pixels; both ends belong to the range.
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
_ALL = 0
_RANGES: Float64s = np.array(list(AREAS.values()))
# pycocotools accepts an IoU that rounding has made slightly smaller than 1.
_LOWEST: Float64s = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)


@dataclass(frozen=True)
class CocoScore:
    """COCO's twelve figures in percent; None if no object is in the range of areas.

    Attributes:
        ap: mean over IoU thresholds 0.5 to 0.95, over classes, and over 101 recalls.
        ap50: ``ap`` at IoU 0.5.
        ap75: ``ap`` at IoU 0.75.
        ap_small: ``ap`` of objects of at most 32x32 pixels.
        ap_medium: ``ap`` of objects of 32x32 to 96x96 pixels.
        ap_large: ``ap`` of objects of at least 96x96 pixels.
        ar_1: mean recall with one detection per image and class.
        ar_10: mean recall with 10 detections.
        ar_100: mean recall with 100 detections.
        ar_small: ``ar_100`` of small objects.
        ar_medium: ``ar_100`` of medium objects.
        ar_large: ``ar_100`` of large objects.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None


@dataclass(frozen=True, eq=False)
class Matches:
    """The matched detections of all images, for all ranges of areas and IoU thresholds.

    Attributes:
        images: int64 ``[d]``, number of each detection's image.
        scores: float64 ``[d]``.
        classes: int64 ``[d]``.
        ranks: int64 ``[d]``, place of the detection in its image and class, from 0.
        right: bool ``[areas, thresholds, d]``, whether the detection found an object.
        ignored: bool ``[areas, thresholds, d]``, whether the detection does not count.
        positives: int64 ``[areas, classes, images]``, number of objects to find.
    """

    images: Ints
    scores: Float64s
    classes: Ints
    ranks: Ints
    right: Bools
    ignored: Bools
    positives: Ints

    def rankings(
        self, area: str = "all", max_detections: int = MAX_DETECTIONS[-1]
    ) -> tuple[Ranking, ...]:
        """Return one ranking per class and IoU threshold; the threshold changes fastest.

        Args:
            area: a key of ``AREAS``.
            max_detections: detections per image and class; at most 100.
        """
        number = list(AREAS).index(area)
        found = []
        for label in range(self.positives.shape[1]):
            members = np.flatnonzero((self.classes == label) & (self.ranks < max_detections))
            order = members[np.argsort(-self.scores[members], kind="stable")]
            images, scores = self.images[order], self.scores[order]
            positives = self.positives[number, label]
            for right, ignored in zip(self.right[number], self.ignored[number], strict=True):
                kept = ~ignored[order]
                if kept.all():
                    # The arrays are shared, which makes the bootstrap faster.
                    found.append(Ranking(images, scores, right[order], positives))
                else:
                    found.append(Ranking(images[kept], scores[kept], right[order[kept]], positives))
        return tuple(found)


def match(
    annotations: Sequence[Annotations], detections: Sequence[Detections], classes: int
) -> Matches:
    """Match the detections of all images with the objects.

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
    best = [_best(each) for each in detections]
    matches = [
        _match(objects, found) for objects, (found, _) in zip(annotations, best, strict=True)
    ]
    counts = [len(found) for found, _ in best]
    shape = (len(AREAS), len(IOU_THRESHOLDS), 0)
    nothing = np.zeros(0, np.int64)
    return Matches(
        images=np.repeat(np.arange(len(best)), counts),
        scores=np.concatenate([np.zeros(0), *(found.scores for found, _ in best)]),
        classes=np.concatenate([nothing, *(found.classes for found, _ in best)]),
        ranks=np.concatenate([nothing, *(ranks for _, ranks in best)]),
        right=np.concatenate([np.zeros(shape, np.bool_), *(right for right, _ in matches)], axis=2),
        ignored=np.concatenate(
            [np.zeros(shape, np.bool_), *(ignored for _, ignored in matches)], axis=2
        ),
        positives=_positives(annotations, classes),
    )


def score(matches: Matches) -> CocoScore:
    """Return COCO's twelve figures."""
    thresholds = len(IOU_THRESHOLDS)
    aps, recalls = {}, {}
    for area in AREAS:
        found = matches.rankings(area)
        aps[area] = average_precisions(found, hundred_one_points)
        recalls[area] = average_precisions(found, _last_recall)
    at_50, at_75 = (int(np.argmin(abs(IOU_THRESHOLDS - level))) for level in (0.5, 0.75))
    fewer = [
        average_precisions(matches.rankings("all", limit), _last_recall)
        for limit in MAX_DETECTIONS[:-1]
    ]
    return CocoScore(
        ap=mean(aps["all"]),
        ap50=mean(aps["all"][at_50::thresholds]),
        ap75=mean(aps["all"][at_75::thresholds]),
        ap_small=mean(aps["small"]),
        ap_medium=mean(aps["medium"]),
        ap_large=mean(aps["large"]),
        ar_1=mean(fewer[0]),
        ar_10=mean(fewer[1]),
        ar_100=mean(recalls["all"]),
        ar_small=mean(recalls["small"]),
        ar_medium=mean(recalls["medium"]),
        ar_large=mean(recalls["large"]),
    )


def _last_recall(recall: Float64s, _precision: Float64s) -> float:
    return float(recall[-1]) if len(recall) else 0.0


def _best(found: Detections) -> tuple[Detections, Ints]:
    """Return the best 100 detections of each class by descending score, and their ranks."""
    order = np.argsort(-found.scores, kind="stable")
    ranks = class_ranks(found.classes[order])
    kept = ranks < MAX_DETECTIONS[-1]
    order = order[kept]
    return Detections(found.boxes[order], found.scores[order], found.classes[order]), ranks[kept]


def _outside(area: boxes.Values) -> Bools:
    """Return for each range of areas which areas are outside, ``[areas, n]``."""
    result: Bools = (area < _RANGES[:, :1]) | (area > _RANGES[:, 1:])
    return result


def _positives(annotations: Sequence[Annotations], classes: int) -> Ints:
    counts = np.zeros((len(AREAS), classes, len(annotations)), np.int64)
    for image, objects in enumerate(annotations):
        wanted = ~(_outside(objects.area) | objects.crowd)
        for number, kept in enumerate(wanted):
            np.add.at(counts[number, :, image], objects.classes[kept], 1)
    return counts


def _overlaps(found: Detections, objects: Annotations) -> Float64s:
    """Return the IoU of each detection with each object of its class; -1 for other classes."""
    overlap = np.where(
        objects.crowd[None, :],
        boxes.coverage(found.boxes, objects.boxes),
        boxes.iou(found.boxes, objects.boxes),
    )
    same: Float64s = np.where(found.classes[:, None] == objects.classes[None, :], overlap, -1.0)
    return same


def _match(objects: Annotations, found: Detections) -> tuple[Bools, Bools]:
    """Return ``right`` and ``ignored`` of an image's detections; see ``Matches``.

    Args:
        objects: the objects of the image.
        found: the detections by descending score.
    """
    shape = (len(AREAS), len(IOU_THRESHOLDS), len(found))
    right = np.zeros(shape, np.bool_)
    ignored = np.repeat(_outside(boxes.areas(found.boxes))[:, None, :], shape[1], axis=1)
    if not len(found) or not len(objects):
        return right, ignored
    overlap = _overlaps(found, objects)
    passed_over = _outside(objects.area) | objects.crowd
    taken = np.zeros((*shape[:2], len(objects)), np.bool_)
    for place in np.flatnonzero(overlap.max(axis=1) >= _LOWEST[0]):
        near = np.flatnonzero(overlap[place] >= _LOWEST[0])
        over = overlap[place, near]
        free = over >= _LOWEST[:, None]
        free = free & (~taken[..., near] | objects.crowd[near])
        wanted, where = _last_best(free & ~passed_over[:, None, near], over)
        other, other_where = _last_best(free & passed_over[:, None, near], over)
        right[..., place] = wanted
        ignored[..., place] = np.where(wanted, False, other | ignored[..., place])
        chosen = near[np.where(wanted, where, other_where)]
        areas, thresholds = np.nonzero(wanted | other)
        taken[areas, thresholds, chosen[areas, thresholds]] = True
    return right, ignored


def _last_best(allowed: Bools, overlap: Float64s) -> tuple[Bools, npt.NDArray[np.intp]]:
    """Return whether an object is allowed, and the last of those with the highest IoU.

    Args:
        allowed: bool ``[areas, thresholds, objects]``.
        overlap: float64 ``[objects]``, at least 0.

    Returns:
        bool and int ``[areas, thresholds]``.
    """
    values = np.where(allowed, overlap, -1.0)[..., ::-1]
    found: Bools = np.any(allowed, axis=2)
    return found, allowed.shape[2] - 1 - np.argmax(values, axis=2)
