"""Chooses the range of an activation, from a histogram of its magnitudes."""

import math

import numpy as np

BINS = 4096
BITS = 8
# Candidates for a range, as shares of the largest magnitude.
SHARES = np.arange(20, 129) / 128
# Share of the values inside the range of ``hist``, as in PaddleSlim.
PERCENTILE = 0.99999


class Histogram:
    """Histogram of magnitudes, for any number of values in bounded memory.

    The bins cover the smallest power of two above the largest magnitude. When a larger value
    arrives, pairs of bins are merged. Therefore the result does not depend on how the values are
    divided into batches.

    Attributes:
        largest: the largest magnitude.
        counts: int64 [BINS], the number of values per bin.
        image_maxima: the largest magnitude of each image.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self.counts = np.zeros(BINS, np.int64)
        self.image_maxima: list[float] = []
        self._top = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count the magnitudes of float32 values [images, ...], which must be finite."""
        magnitudes = np.abs(values)
        maxima = magnitudes.reshape(len(values), -1).max(axis=1, initial=0.0)
        self.image_maxima.extend(maxima.tolist())
        largest = float(maxima.max())
        if largest == 0.0:
            self.counts[0] += magnitudes.size
            return
        self.largest = max(self.largest, largest)
        # The smallest power of two that is larger, so that no value equals the upper end.
        top = math.ldexp(1.0, math.frexp(largest)[1])
        if self._top == 0.0:
            self._top = top
        while self._top < top:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros_like(merged)])
            self._top *= 2
        magnitudes *= BINS / self._top
        bins = magnitudes.reshape(-1).astype(np.int32)
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self._top / BINS

    def centres(self) -> np.ndarray:
        """Return the centre of each bin, float64 [BINS]."""
        return (np.arange(BINS) + 0.5) * self.width


def choose_range(histogram: Histogram, algorithm: str, steps: int) -> float:
    """Return the range that an algorithm chooses.

    Args:
        histogram: the magnitudes.
        algorithm: ``mse``: see :func:`best_range`. The others are PaddleSlim's. ``hist``: the range
            with a share of ``PERCENTILE`` of the values. ``KL``: the range with the smallest
            Kullback-Leibler divergence of the quantized values. ``avg``: the mean of the images'
            largest magnitudes. ``abs_max``: the largest magnitude.
        steps: steps between 0 and the range: 255 for unsigned values, 127 for signed values.

    Returns:
        The range; 0 if all values are 0.
    """
    if histogram.largest == 0.0 or algorithm == "abs_max":
        return histogram.largest
    if algorithm == "avg":
        return float(np.mean(histogram.image_maxima))
    if algorithm == "hist":
        share = np.cumsum(histogram.counts) / histogram.counts.sum()
        inside = int(np.searchsorted(share, PERCENTILE)) + 1
        return min(inside * histogram.width, histogram.largest)
    if algorithm == "KL":
        # Imported here so that this module needs no Paddle, whose flags must be set before.
        from paddle.static.quantization.cal_kl_threshold import cal_kl_threshold

        # The function expects a histogram that ends at the largest value.
        bins = math.ceil(histogram.largest / histogram.width)
        found = cal_kl_threshold(histogram.counts[:bins], histogram.width, BITS)
        return min(float(found), histogram.largest)
    return best_range(histogram, steps)


def best_range(histogram: Histogram, steps: int) -> float:
    """Return the range R with the smallest squared error of rounding and clipping.

    The mean squared error of a value up to R is (R / steps)^2 / 12, as for uniform rounding. A
    larger value is clipped to R.

    Args:
        histogram: the magnitudes.
        steps: steps between 0 and R: 255 for unsigned values, 127 for signed values.

    Returns:
        The range; 0 if all values are 0.
    """
    counts, centres = histogram.counts.astype(np.float64), histogram.centres()
    candidates = histogram.largest * SHARES
    # Sums over the values above each bin, so that each candidate needs one lookup.
    above = [
        np.concatenate([np.cumsum((counts * centres**power)[::-1])[::-1], [0.0]])
        for power in range(3)
    ]
    first = np.searchsorted(centres, candidates, side="right")
    number, total, squares = (sums[first] for sums in above)
    clipped = squares - 2 * candidates * total + candidates**2 * number
    rounded = (counts.sum() - number) * (candidates / steps) ** 2 / 12
    return float(candidates[np.argmin(rounded + clipped)])
