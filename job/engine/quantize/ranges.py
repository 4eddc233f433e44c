"""Chooses the range of an activation, from a histogram of its magnitudes."""

import math

import numpy as np

BINS, CHANNEL_BINS = 4096, 512
BITS = 8
# Candidates for a range, as shares of the largest magnitude.
SHARES = np.arange(20, 129) / 128
# Below 2 to this power, the scale of the bins is no float32.
SMALLEST_EXPONENT = -100
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


class ChannelHistograms:
    """Histograms of the magnitudes of each channel of an activation, except zeros.

    A zero is on the grid of every range, so rounding does not change it.

    Args:
        channels: number of channels.

    Attributes:
        largest: the largest magnitude of each channel, [channels].
        counts: the number of values per bin, int32 [channels, CHANNEL_BINS].
        measured: number of values of a channel, with zeros.
    """

    def __init__(self, channels: int) -> None:
        self.largest = np.zeros(channels)
        self.counts = np.zeros((channels, CHANNEL_BINS), np.int32)
        self.measured = 0
        self._tops = np.zeros(channels)

    def add(self, values: np.ndarray) -> None:
        """Count the magnitudes of float32 values [N, C, H, W], which must be finite."""
        magnitudes = np.abs(values).transpose(1, 0, 2, 3).reshape(len(self.largest), -1)
        self.measured += magnitudes.shape[1]
        self.largest = np.maximum(self.largest, magnitudes.max(axis=1))
        self._raise_tops()
        scales = (CHANNEL_BINS / np.where(self._tops > 0, self._tops, 1)).astype(np.float32)
        bins = (magnitudes * scales[:, np.newaxis]).astype(np.int32)
        bins += np.arange(len(bins), dtype=np.int32)[:, np.newaxis] * CHANNEL_BINS
        found = np.bincount(bins[magnitudes > 0], minlength=self.counts.size)
        self.counts += found.reshape(self.counts.shape).astype(np.int32)

    def _raise_tops(self) -> None:
        """Let the bins of each channel cover its largest magnitude; see :class:`Histogram`."""
        # The smallest power of two that is larger, so that no value equals the upper end.
        exponents = np.maximum(np.frexp(self.largest)[1], SMALLEST_EXPONENT)
        tops = np.where(self.largest > 0, np.ldexp(1.0, exponents), 0.0)
        known = self._tops > 0
        while (low := known & (self._tops < tops)).any():
            merged = self.counts[low].reshape(-1, CHANNEL_BINS // 2, 2).sum(axis=2)
            self.counts[low] = np.pad(merged, ((0, 0), (0, CHANNEL_BINS // 2)))
            self._tops[low] *= 2
        self._tops = np.maximum(self._tops, tops)

    def best_ranges(self, steps: int) -> np.ndarray:
        """Return the range of :func:`best_ranges` of each channel, float64 [channels]."""
        widths = np.where(self._tops > 0, self._tops, 1) / CHANNEL_BINS
        return best_ranges(self.counts, widths, self.largest, steps)


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
    """Return the range of :func:`best_ranges` for one histogram."""
    largest, width = np.array([histogram.largest]), np.array([histogram.width])
    return float(best_ranges(histogram.counts[np.newaxis], width, largest, steps)[0])


def best_ranges(
    counts: np.ndarray, widths: np.ndarray, largest: np.ndarray, steps: int
) -> np.ndarray:
    """Return the range R of each histogram with the smallest error of rounding and clipping.

    The mean squared error of a value up to R is (R / steps)^2 / 12, as for uniform rounding. A
    larger value is clipped to R.

    Args:
        counts: number of values per bin, [histograms, bins].
        widths: width of the bins, [histograms].
        largest: the largest magnitudes, [histograms].
        steps: steps between 0 and R: 255 for unsigned values, 127 for signed values.

    Returns:
        The ranges, float64 [histograms]; 0 if all values are 0.
    """
    counts, bins = counts.astype(np.float64), counts.shape[1]
    centres = (np.arange(bins) + 0.5) * widths[:, np.newaxis]
    candidates = largest[:, np.newaxis] * SHARES
    # The first bin above each candidate, and sums over the bins from each bin on.
    first = np.minimum(np.floor(candidates / widths[:, np.newaxis] + 0.5), bins).astype(np.int64)
    number, total, squares = (
        np.take_along_axis(_sums_from(counts * centres**power), first, axis=1) for power in range(3)
    )
    clipped = squares - 2 * candidates * total + candidates**2 * number
    inside = counts.sum(axis=1, keepdims=True) - number
    best = np.argmin(inside * (candidates / steps) ** 2 / 12 + clipped, axis=1)
    return np.take_along_axis(candidates, best[:, np.newaxis], axis=1)[:, 0]


def _sums_from(values: np.ndarray) -> np.ndarray:
    """Return the sum of the values from each column on, [rows, columns + 1]."""
    padded = np.pad(values, ((0, 0), (0, 1)))
    return np.cumsum(padded[:, ::-1], axis=1)[:, ::-1]
