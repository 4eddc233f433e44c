"""Precision, recall and average precision of ranked detections.

``Ranking`` is the result of matching detections with objects. Every metric of this package is
computed from rankings, and the bootstrap weights the images of a ranking.

Sources of the three averages:

* ``area``: ``VOCap`` of the VOC2010 to VOC2012 devkits.
* ``eleven_points``: ``VOCevaldet`` of the VOC2007 devkit.
* ``hundred_one_points``: ``COCOeval.accumulate`` of pycocotools.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from job.detection.annotations import Bools, Float64s, Ints

# Average precision (0 to 1) of a curve: recall and precision at each true positive.
Average = Callable[[Float64s, Float64s], float]

# MATLAB's 0:0.1:1 counts from both ends. A recall of 0.6 reaches 1 - 4 * 0.1, but not 6 * 0.1.
_ELEVEN = np.concatenate([np.arange(6) * 0.1, 1 - np.arange(4, -1, -1) * 0.1])
_HUNDRED_ONE = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The detections of one class that count, the most certain one first.

    Detections of ignored objects are not included. Equal scores are in the order of images, then in
    the order of the detections in their image.

    Attributes:
        images: int64 ``[d]``, number of each detection's image.
        scores: float64 ``[d]``, descending.
        right: bool ``[d]``, whether the detection is a true positive.
        positives: int64 ``[images]``, number of objects to find in each image.
    """

    images: Ints
    scores: Float64s
    right: Bools
    positives: Ints

    @cached_property
    def _right_at(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self.right)

    @cached_property
    def _right_images(self) -> Ints:
        found: Ints = self.images[self._right_at]
        return found

    def curve(self) -> tuple[Float64s, Float64s]:
        """Return recall and precision (0 to 1) at each true positive, by descending score.

        No average needs the points between true positives: their recall is the same as at the
        previous true positive, and their precision is lower.

        Raises:
            ValueError: there is no object to find.
        """
        total = int(self.positives.sum())
        if total == 0:
            raise ValueError("recall is not defined without objects")
        hits = np.arange(1.0, len(self._right_at) + 1)
        return hits / total, hits / (self._right_at + 1.0)

    def weighted_curve(self, weights: Ints, total: int, ranks: Ints) -> tuple[Float64s, Float64s]:
        """Return recall and precision as ``curve`` does, with images that count several times.

        Args:
            weights: int64 ``[images]``, how often each image counts.
            total: weighted number of objects to find, at least 1.
            ranks: int64 ``[d]``, cumulative sum of the weights of ``images``.
        """
        hits = np.cumsum(weights[self._right_images]).astype(np.float64)
        # Until an image counts, its detections have rank 0.
        return hits / total, hits / np.maximum(ranks[self._right_at], 1)


def area(recall: Float64s, precision: Float64s) -> float:
    """Return the area under the curve, with precision made non-increasing in recall.

    Arguments of all averages are float64 ``[points]``, 0 to 1, by ascending recall.
    """
    if not len(recall):
        return 0.0
    return float(np.diff(recall, prepend=0.0) @ envelope(precision))


def eleven_points(recall: Float64s, precision: Float64s) -> float:
    """Return the mean of the best precision at recall 0, 0.1, ..., 1 and above."""
    return _mean_at(_ELEVEN, recall, precision)


def hundred_one_points(recall: Float64s, precision: Float64s) -> float:
    """Return the mean of the best precision at recall 0, 0.01, ..., 1 and above."""
    return _mean_at(_HUNDRED_ONE, recall, precision)


def _mean_at(points: Float64s, recall: Float64s, precision: Float64s) -> float:
    if not len(recall):
        return 0.0
    at = np.searchsorted(recall, points, side="left")
    best = np.append(envelope(precision), 0.0)
    return float(best[at].sum()) / len(points)


def envelope(precision: Float64s) -> Float64s:
    """Return for each point the best precision at its recall or above."""
    best: Float64s = np.maximum.accumulate(precision[::-1])[::-1]
    return best


def average_precisions(
    rankings: Sequence[Ranking], average: Average, weights: Ints | None = None
) -> Float64s:
    """Return the average precision of each ranking, 0 to 1; NaN without objects to find.

    Args:
        rankings: one per class, or one per class and IoU threshold.
        average: one of the functions of this module.
        weights: int64 ``[images]``, how often each image counts; None: once.
    """
    if weights is not None:
        return _weighted_averages(rankings, average, weights)
    values = np.full(len(rankings), np.nan)
    for number, ranking in enumerate(rankings):
        if ranking.positives.any():
            values[number] = average(*ranking.curve())
    return values


def _weighted_averages(rankings: Sequence[Ranking], average: Average, weights: Ints) -> Float64s:
    values = np.full(len(rankings), np.nan)
    previous: Ranking | None = None
    total, ranks = 0, weights
    for number, ranking in enumerate(rankings):
        # The IoU thresholds of a class share their arrays, so most sums are computed once.
        if previous is None or ranking.positives is not previous.positives:
            total = int(ranking.positives @ weights)
        if previous is None or ranking.images is not previous.images:
            ranks = np.cumsum(weights[ranking.images])
        if total > 0:
            values[number] = average(*ranking.weighted_curve(weights, total, ranks))
        previous = ranking
    return values


def mean(values: Float64s) -> float | None:
    """Return the mean in percent of the values (0 to 1) that are not NaN; None without any."""
    known = values[~np.isnan(values)]
    return 100 * float(known.mean()) if known.size else None
