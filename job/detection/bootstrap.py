"""Interval of the difference of two models' mAP, by a bootstrap over images.

Images are sampled with replacement, and both models are scored on the same sample. Matches
depend on single images only, so they are computed once (``precision_recall.Ranking``). A resample
only counts each image as often as it was sampled. The interval is between the 2.5th and the 97.5th
percentile of the differences (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from job.detection.annotations import Float64s
from job.detection.precision_recall import Average, Ranking, area, average_precisions, mean
from job.stats import Interval

RESAMPLES = 1000


@dataclass(frozen=True)
class MapDrop:
    """Comparison of FP32 with INT8 on the same images.

    Attributes:
        fp32_map: mAP of FP32 in percent.
        int8_map: mAP of INT8 in percent.
        drop: FP32 minus INT8, in percentage points; positive when INT8 is worse.
        drop_interval: 95% interval of the drop, in percentage points; None for fewer than two
            images.
    """

    fp32_map: float
    int8_map: float
    drop: float
    drop_interval: Interval | None


def compare(
    fp32: Sequence[Ranking],
    int8: Sequence[Ranking],
    average: Average = area,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> MapDrop | None:
    """Compare two models.

    Args:
        fp32: rankings of FP32, as from ``voc_metric.rankings`` or ``coco_metric.Matches.rankings``.
        int8: rankings of INT8 on the same images.
        average: average precision of a curve: ``precision_recall.area`` for VOC,
            ``precision_recall.hundred_one_points`` for COCO.
        resamples: number of samples of the images.
        seed: random seed of the samples.

    Returns:
        The comparison; None if there are no objects to find.

    Raises:
        ValueError: the objects of both models differ.
    """
    _check_same_objects(fp32, int8)
    # Classes without objects have no average precision in any resample.
    pairs = [pair for pair in zip(fp32, int8, strict=True) if pair[0].positives.any()]
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    fp32_map = mean(average_precisions(first, average))
    int8_map = mean(average_precisions(second, average))
    if fp32_map is None or int8_map is None:
        return None
    drops = _resampled_drops(first, second, average, resamples, seed)
    interval = None
    if len(first[0].positives) > 1 and len(drops):
        low, high = np.percentile(drops, (2.5, 97.5))
        interval = (float(low), float(high))
    return MapDrop(fp32_map, int8_map, fp32_map - int8_map, interval)


def _check_same_objects(fp32: Sequence[Ranking], int8: Sequence[Ranking]) -> None:
    if len(fp32) != len(int8) or not all(
        np.array_equal(one.positives, other.positives)
        for one, other in zip(fp32, int8, strict=True)
    ):
        raise ValueError("expected rankings of both models for the same images and objects")


def _resampled_drops(
    fp32: Sequence[Ranking], int8: Sequence[Ranking], average: Average, resamples: int, seed: int
) -> Float64s:
    """Return the drop of each resample that has objects, in percentage points."""
    images = len(fp32[0].positives)
    rng = np.random.default_rng(seed)
    drops = []
    for _ in range(resamples):
        weights = np.bincount(rng.integers(0, images, images), minlength=images)
        fp32_map = mean(average_precisions(fp32, average, weights))
        int8_map = mean(average_precisions(int8, average, weights))
        if fp32_map is not None and int8_map is not None:
            drops.append(fp32_map - int8_map)
    return np.array(drops)
