"""Statistics: correct answers, intervals, paired comparisons, percentiles, histograms.

All intervals are 95% intervals. Proportions are given as counts and returned in percent (0..100),
differences in percentage points. Sources:

* Wilson (1927), JASA 22:209, and Newcombe (1998), Statistics in Medicine 17:857: one proportion.
* Newcombe (1998), Statistics in Medicine 17:2635, method 10: difference of paired proportions.
* Fagerland, Lydersen, Laake (2013), BMC Medical Research Methodology 13:91: mid-p McNemar test.
* Hyndman and Fan (1996), The American Statistician 50:361, definition 1: percentiles.
* Freedman and Diaconis (1981), Z. Wahrscheinlichkeitstheorie 57:453: width of histogram bins.

scipy is imported where it is used, because the command line imports this module.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_BINS = 120

Interval = tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """Accuracy in percent, with its 95% interval in percent."""

    percent: float
    interval: Interval


@dataclass(frozen=True)
class PairedComparison:
    """Comparison of FP32 with INT8 on the same images.

    Attributes:
        fp32_only_right: number of images that only FP32 classifies correctly.
        int8_only_right: number of images that only INT8 classifies correctly.
        p_value: two-sided p-value of the mid-p McNemar test.
        top1_drop: FP32 minus INT8, in percentage points; positive when INT8 is worse.
        top1_drop_interval: 95% interval of the drop, in percentage points.
    """

    fp32_only_right: int
    int8_only_right: int
    p_value: float
    top1_drop: float
    top1_drop_interval: Interval


@dataclass(frozen=True)
class Percentiles:
    """Latency percentiles, in the unit of the samples."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Ratio:
    """INT8 throughput divided by FP32 throughput; ``interval`` is None for a single round."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Histogram:
    """Number of samples per bin: ``len(edges_ms) == len(counts) + 1``."""

    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]


def topk_correct(
    scores: NDArray[np.float32], labels: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Return for each image whether its label is among the k highest scores.

    Ties count against the model: a label is in the top k only if fewer than k other classes have
    the same or a higher score. Therefore a model with the same score for every class is never
    correct. Without ties and with k = 1, the result is the same as with ``argmax``. A row with NaN
    is not correct.

    Args:
        scores: [N, C] float32, higher is better.
        labels: [N] int64 in 0..C-1.
        k: at least 1; with k >= C every row without NaN is correct.

    Returns:
        bool [N].

    Raises:
        ValueError: the shapes do not match, k is below 1, or a label is outside the classes.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"expected scores [N, C] and labels [N], found {scores.shape} and {labels.shape}"
        )
    if k < 1:
        raise ValueError(f"expected k of at least 1, found {k}")
    classes = scores.shape[1]
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if outside.size:
        first = int(outside[0])
        raise ValueError(
            f"label {int(labels[first])} of image {first} is outside the {classes} classes"
        )
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    rivals = np.count_nonzero(scores >= own, axis=1) - 1
    correct: NDArray[np.bool_] = (rivals < k) & ~np.isnan(scores).any(axis=1)
    return correct


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the Euclidean norm of the differences over the norm of the expected values.

    Both arrays have the same shape. If all expected values are 0, the norm of the differences is
    returned.
    """
    return float(np.linalg.norm(found - expected) / (np.linalg.norm(expected) or 1.0))


def wilson_interval(right: int, total: int) -> Interval:
    """Return the Wilson score interval of a proportion, in percent, without continuity correction.

    Raises:
        ValueError: total is below 1, or right is not in 0..total.
    """
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"expected 0 <= right <= total and total >= 1, found {right} of {total}")
    from scipy.stats import binomtest

    bounds = binomtest(right, total).proportion_ci(method="wilson")
    # For 0 and for all, the bound equals the proportion; rounding must not exceed it.
    low = 0.0 if right == 0 else 100 * float(bounds.low)
    high = 100.0 if right == total else 100 * float(bounds.high)
    return low, high


def accuracy(correct: NDArray[np.bool_]) -> Accuracy:
    """Return the accuracy with its Wilson interval.

    Args:
        correct: bool [N], N >= 1, as from ``topk_correct``.
    """
    right = int(np.count_nonzero(correct))
    return Accuracy(100 * right / max(correct.size, 1), wilson_interval(right, correct.size))


def is_above_chance(interval: Interval, classes: int) -> bool:
    """Return whether an accuracy is significantly higher than that of a random choice.

    Args:
        interval: 95% interval of the top-1 accuracy in percent.
        classes: number of classes.
    """
    return interval[0] > 100 / classes


def mcnemar_mid_p(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of the mid-p McNemar test, from the two discordant counts.

    The p-value is twice the smaller tail, with the observed count weighted by one half. Fagerland
    and others recommend it, because the exact test is too conservative. It is 1 for equal counts,
    also if both are 0.

    Raises:
        ValueError: a count is negative.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"expected counts of at least 0, found {only_first} and {only_second}")
    if only_first == only_second:
        return 1.0
    from scipy.stats import binom

    smaller, trials = min(only_first, only_second), only_first + only_second
    return float(2 * binom.cdf(smaller, trials, 0.5) - binom.pmf(smaller, trials, 0.5))


def paired_difference_interval(
    both: int, only_first: int, only_second: int, neither: int
) -> Interval:
    """Return the 95% interval of first minus second, in percentage points, for paired proportions.

    Newcombe's method 10: a square-and-add interval from the Wilson intervals of both proportions,
    corrected for their correlation (with continuity correction).

    Args:
        both: images that both classify correctly.
        only_first: images that only the first classifies correctly.
        only_second: images that only the second classifies correctly.
        neither: images that neither classifies correctly.

    Raises:
        ValueError: a count is negative, or all counts are 0.
    """
    if min(both, only_first, only_second, neither) < 0:
        raise ValueError(
            f"expected counts of at least 0, found {both}, {only_first}, {only_second}, {neither}"
        )
    total = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    low1, high1 = wilson_interval(first, total)
    low2, high2 = wilson_interval(second, total)
    share1, share2 = 100 * first / total, 100 * second / total
    covariance = float(both * neither - only_first * only_second)
    if covariance > 0:
        covariance = max(covariance - total / 2, 0.0)
    spread = math.sqrt(first * (total - first)) * math.sqrt(second * (total - second))
    phi = covariance / spread if spread else 0.0
    down1, up1 = share1 - low1, high1 - share1
    down2, up2 = share2 - low2, high2 - share2
    difference = share1 - share2
    below = down1 * down1 - 2 * phi * down1 * up2 + up2 * up2
    above = up1 * up1 - 2 * phi * up1 * down2 + down2 * down2
    return difference - math.sqrt(max(below, 0.0)), difference + math.sqrt(max(above, 0.0))


def too_few_images(right: int, total: int, limit: float) -> bool:
    """Return whether the images are too few to decide whether a drop is below a limit.

    Even a model that classifies each image as the reference does has an interval around a drop of
    0. The images are too few if this interval reaches beyond the limit.

    Args:
        right: images that the reference classifies correctly.
        total: number of images, at least 1.
        limit: a top-1 drop, in percentage points; its sign does not matter.
    """
    low, high = paired_difference_interval(right, 0, 0, total - right)
    return max(-low, high) > abs(limit)


def compare_paired(fp32: NDArray[np.bool_], int8: NDArray[np.bool_]) -> PairedComparison:
    """Compare FP32 with INT8 image by image.

    Args:
        fp32: bool [N], N >= 1: whether FP32 is correct.
        int8: bool [N]: whether INT8 is correct, on the same images in the same order.

    Raises:
        ValueError: the shapes differ or are empty.
    """
    if fp32.shape != int8.shape or fp32.ndim != 1 or fp32.size == 0:
        raise ValueError(
            f"expected two arrays of the same shape [N], N >= 1, found {fp32.shape} and "
            f"{int8.shape}"
        )
    both = int(np.count_nonzero(fp32 & int8))
    only_fp32 = int(np.count_nonzero(fp32 & ~int8))
    only_int8 = int(np.count_nonzero(~fp32 & int8))
    neither = fp32.size - both - only_fp32 - only_int8
    return PairedComparison(
        fp32_only_right=only_fp32,
        int8_only_right=only_int8,
        p_value=mcnemar_mid_p(only_fp32, only_int8),
        top1_drop=100 * (only_fp32 - only_int8) / fp32.size,
        top1_drop_interval=paired_difference_interval(both, only_fp32, only_int8, neither),
    )


def percentiles(samples: Sequence[float] | NDArray[np.float64]) -> Percentiles:
    """Return p50, p90 and p99 by nearest rank.

    The q-th percentile is the smallest sample that at least q% of the samples do not exceed. So
    each percentile is a measured value. With fewer than 100 samples, p99 is the largest sample.

    Raises:
        ValueError: there are no samples.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0:
        raise ValueError("expected at least one sample")
    p50, p90, p99 = np.percentile(values, (50, 90, 99), method="inverted_cdf")
    return Percentiles(float(p50), float(p90), float(p99))


def mean_throughput(rounds: Sequence[float]) -> float:
    """Return the geometric mean of images/s over rounds.

    The ratio of two geometric means is the geometric mean of the rounds' ratios. Therefore the
    images/s and the speedup in a table are consistent.

    Raises:
        ValueError: there are no rounds, or a rate is not positive and finite.
    """
    return math.exp(float(np.mean(_log_rates(rounds))))


def paired_ratio(fp32_rounds: Sequence[float], int8_rounds: Sequence[float]) -> Ratio:
    """Return the speedup of INT8 over FP32 from interleaved rounds, with its 95% interval.

    The speedup is the geometric mean of the rounds' ratios. The interval is a paired t interval of
    the logarithms of the ratios. It is paired because both models ran alternately in each round, so
    that a disturbance slows both models. A bootstrap of few rounds would give too narrow an
    interval.

    Args:
        fp32_rounds: images/s of FP32, one value per round.
        int8_rounds: images/s of INT8 in the same rounds.

    Raises:
        ValueError: there are no rounds, the lengths differ, or a rate is not positive and finite.
    """
    if len(fp32_rounds) != len(int8_rounds):
        raise ValueError(
            f"expected as many FP32 as INT8 rounds, found {len(fp32_rounds)} FP32 and "
            f"{len(int8_rounds)} INT8"
        )
    logs = _log_rates(int8_rounds) - _log_rates(fp32_rounds)
    mean = float(np.mean(logs))
    if logs.size < 2:
        return Ratio(math.exp(mean), None)
    from scipy.stats import t as student

    quantile = float(student.ppf(0.975, logs.size - 1))
    half = quantile * float(np.std(logs, ddof=1)) / math.sqrt(logs.size)
    return Ratio(math.exp(mean), (math.exp(mean - half), math.exp(mean + half)))


def _log_rates(rounds: Sequence[float]) -> NDArray[np.float64]:
    rates = np.asarray(rounds, dtype=np.float64)
    if rates.size == 0 or not np.all(np.isfinite(rates) & (rates > 0)):
        raise ValueError("expected one or more rounds with positive, finite images/s")
    return np.log(rates)


def latency_histogram(samples_ms: Sequence[float] | NDArray[np.float64]) -> Histogram:
    """Return a histogram of all latencies, with edges evenly spaced in the logarithm.

    With logarithmic edges, one slow batch does not put all other batches into one bin. The bin
    width follows Freedman and Diaconis, with at most 120 bins. The outer edges are the extreme
    samples.

    Raises:
        ValueError: there are no samples, or a sample is not positive and finite.
    """
    samples = np.asarray(samples_ms, dtype=np.float64)
    if samples.size == 0 or not np.all(np.isfinite(samples) & (samples > 0)):
        raise ValueError("expected one or more positive, finite latencies in milliseconds")
    low, high = float(samples.min()), float(samples.max())
    if low == high:
        return Histogram((low * 0.995, high * 1.005), (int(samples.size),))
    quarter, three_quarters = np.percentile(np.log(samples), (25, 75))
    width = 2 * float(three_quarters - quarter) / samples.size ** (1 / 3)
    ideal_bins = math.log(high / low) / width if width > 0 else MAX_BINS
    bins = min(MAX_BINS, max(1, math.ceil(ideal_bins)))
    edges = np.geomspace(low, high, bins + 1)
    # Rounding in geomspace could exclude the extreme samples.
    edges[0], edges[-1] = low, high
    counts, _ = np.histogram(samples, edges)
    return Histogram(tuple(float(e) for e in edges), tuple(int(c) for c in counts))
