"""Ranges of activations, chosen from histograms."""

import numpy as np
import pytest

from job.engine.quantize.ranges import BINS, ChannelHistograms, Histogram, best_range, choose_range

pytestmark = pytest.mark.engine


def histogram_of(values: np.ndarray, batch: int) -> Histogram:
    histogram = Histogram()
    for start in range(0, len(values), batch):
        histogram.add(values[start : start + batch])
    return histogram


def squared_error(values: np.ndarray, end: float, steps: int) -> float:
    """The error of rounding and clipping, computed from the values themselves."""
    size = end / steps
    rounded = np.clip(np.rint(values / size), -steps, steps) * size
    return float(((rounded - values) ** 2).sum())


def values_of(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((24, 3, 5, 7)) * random.gamma(1, 2)).astype("float32")


@pytest.mark.parametrize("seed", range(10))
def test_the_range_does_not_depend_on_the_batches(seed: int) -> None:
    found = [histogram_of(values_of(seed), batch) for batch in (1, 5, 24)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.counts, found[0].counts)
        assert other.image_maxima == found[0].image_maxima
    assert found[0].counts.sum() == 24 * 3 * 5 * 7


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("steps", [127, 255])
def test_no_candidate_has_a_smaller_error(seed: int, steps: int) -> None:
    values = values_of(seed)
    found = best_range(histogram_of(values, 8), steps)
    errors = [
        squared_error(values, share * np.abs(values).max() / 128, steps) for share in range(20, 129)
    ]
    # The error of rounding is an estimate, which small samples miss by some percent.
    assert squared_error(values, found, steps) <= 1.1 * min(errors)


def test_one_outlier_is_clipped() -> None:
    values = np.full((4, 100000), 0.5, "float32")
    values[:, ::2] = np.random.default_rng(0).uniform(0, 1, (4, 50000))
    values[0, 0] = 4
    found = best_range(histogram_of(values, 4), 255)
    assert 1 < found < 3
    assert squared_error(values, found, 255) < 0.8 * squared_error(values, 4, 255)


@pytest.mark.parametrize("algorithm", ["mse", "hist", "KL", "avg", "abs_max"])
def test_algorithms(algorithm: str) -> None:
    values = np.abs(values_of(3))
    end = choose_range(histogram_of(values, 8), algorithm, 255)
    assert 0.3 * values.max() < end <= values.max()
    assert choose_range(histogram_of(0 * values, 8), algorithm, 255) == 0
    if algorithm == "avg":
        assert end == pytest.approx(values.reshape(24, -1).max(1).mean(), rel=1e-6)


def test_a_bin_is_never_wider_than_a_two_thousandth_of_the_largest_value() -> None:
    for scale in (1e-20, 0.99, 1.0, 1.01, 3e30):
        histogram = histogram_of((values_of(1) * scale).astype("float32"), 8)
        assert histogram.width * BINS / 2 <= histogram.largest < histogram.width * BINS


def channels_of(values: np.ndarray, batch: int) -> ChannelHistograms:
    channels = ChannelHistograms(values.shape[1])
    for start in range(0, len(values), batch):
        channels.add(values[start : start + batch])
    return channels


def varied_channels() -> np.ndarray:
    """Channels of very different sizes; one is dead, and one has an outlier."""
    random = np.random.default_rng(5)
    values = np.maximum(random.standard_normal((24, 6, 15, 17)), 0)
    values *= np.array([1e-35, 1e-3, 0, 1, 40, 1])[:, np.newaxis, np.newaxis]
    values[7, 5, 3, 3] = 30
    return values.astype("float32")


def test_histograms_of_channels_do_not_depend_on_the_batches() -> None:
    found = [channels_of(varied_channels(), batch) for batch in (1, 5, 24)]
    for each in found:
        np.testing.assert_array_equal(each.counts, found[0].counts)
        np.testing.assert_array_equal(each.best_ranges(255), found[0].best_ranges(255))
        assert each.measured == 24 * 15 * 17
    np.testing.assert_array_equal(
        found[0].counts.sum(axis=1), (varied_channels() > 0).sum(axis=(0, 2, 3))
    )


@pytest.mark.parametrize("steps", [127, 255])
def test_the_range_of_a_channel_has_the_smallest_error(steps: int) -> None:
    values = varied_channels()
    found = channels_of(values, 8).best_ranges(steps)
    assert found[2] == 0
    # Values of 1e-35 are in the first bin, so their range is the largest value.
    assert found[0] == values[:, 0].max()
    for channel in (1, 3, 4, 5):
        (one,) = values.transpose(1, 0, 2, 3)[[channel]]
        ends = np.arange(20, 129) / 128 * one.max()
        least = min(squared_error(one, end, steps) for end in ends)
        assert squared_error(one, found[channel], steps) <= 1.1 * least
