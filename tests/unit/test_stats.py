"""Statistics compared with published values; each comment names the source."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy
from scipy.stats import t as student

from job import stats
from job.stats import closeness
from job.stats.independent import independent_ratio


def rows(*scores: tuple[float, ...]) -> np.ndarray:
    return np.array(scores, dtype=np.float32)


def labels(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_topk_counts_the_highest_scores():
    scores = rows((0.1, 0.5, 0.4), (0.1, 0.5, 0.4), (0.1, 0.5, 0.4))
    assert stats.topk_correct(scores, labels(0, 1, 2), 1).tolist() == [False, True, False]
    assert stats.topk_correct(scores, labels(0, 1, 2), 2).tolist() == [False, True, True]
    assert stats.topk_correct(scores, labels(0, 1, 2), 3).tolist() == [True, True, True]


def test_topk_never_decides_a_tie_for_the_model():
    constant = np.zeros((4, 4), dtype=np.float32)
    assert not stats.topk_correct(constant, labels(0, 1, 2, 3), 1).any()
    assert not stats.topk_correct(constant, labels(0, 1, 2, 3), 3).any()
    assert stats.topk_correct(constant, labels(0, 1, 2, 3), 4).all()


def test_topk_tie_inside_the_top_k_is_right():
    scores = rows((0.4, 0.4, 0.2), (0.4, 0.4, 0.2))
    assert stats.topk_correct(scores, labels(0, 1), 2).all()
    assert not stats.topk_correct(scores, labels(0, 1), 1).any()


def test_topk_nan_anywhere_in_a_row_is_wrong():
    scores = rows((0.9, math.nan), (math.nan, 0.1), (0.9, 0.1))
    assert stats.topk_correct(scores, labels(0, 0, 0), 2).tolist() == [False, False, True]


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_topk_without_ties_agrees_with_sorting(classes, k, seed):
    rng = np.random.default_rng(seed)
    scores = np.stack([rng.permutation(classes) for _ in range(6)]).astype(np.float32)
    wanted = rng.integers(0, classes, 6)
    expected = [wanted[i] in np.argsort(-scores[i])[:k] for i in range(6)]
    assert stats.topk_correct(scores, wanted, k).tolist() == expected


def test_topk_refuses_what_cannot_be_scored():
    scores = rows((0.1, 0.9))
    with pytest.raises(ValueError, match=r"label 2 of image 0 .* 2 classes"):
        stats.topk_correct(scores, labels(2), 1)
    with pytest.raises(ValueError, match="label -1 of image 0"):
        stats.topk_correct(scores, labels(-1), 1)
    with pytest.raises(ValueError, match="found 0"):
        stats.topk_correct(scores, labels(0), 0)
    with pytest.raises(ValueError, match=r"found \(1, 2\) and \(2,\)"):
        stats.topk_correct(scores, labels(0, 1), 1)


# Newcombe (1998), Statistics in Medicine 17:857, table I, method 3.
@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(right, total, low, high):
    found = stats.wilson_interval(right, total)
    assert found == pytest.approx((100 * low, 100 * high), abs=0.005)


def test_wilson_interval_ends_are_exact():
    assert stats.wilson_interval(0, 7)[0] == 0.0
    assert stats.wilson_interval(7, 7)[1] == 100.0


@given(st.integers(1, 100_000), st.data())
def test_wilson_interval_is_symmetric_and_holds_the_share(total, data):
    right = data.draw(st.integers(0, total))
    low, high = stats.wilson_interval(right, total)
    assert 0 <= low <= 100 * right / total <= high <= 100
    other_low, other_high = stats.wilson_interval(total - right, total)
    assert (100 - other_high, 100 - other_low) == pytest.approx((low, high))


def test_wilson_interval_refuses_impossible_counts():
    with pytest.raises(ValueError, match="found 3 of 2"):
        stats.wilson_interval(3, 2)
    with pytest.raises(ValueError, match="found 0 of 0"):
        stats.wilson_interval(0, 0)


def test_accuracy_counts_answers():
    found = stats.accuracy(np.array([True] * 81 + [False] * 182))
    assert found.percent == pytest.approx(100 * 81 / 263)
    assert found.interval == stats.wilson_interval(81, 263)


# Fagerland, Lydersen, Laake (2013), BMC Medical Research Methodology 13:91, tables 1 and 2:
# airway hyper-responsiveness (1 and 7 discordant), complete response (6 and 16).
@pytest.mark.parametrize(("first", "second", "mid_p"), [(1, 7, 0.0391), (6, 16, 0.0347)])
def test_mcnemar_as_published(first, second, mid_p):
    assert stats.mcnemar_mid_p(first, second) == pytest.approx(mid_p, abs=5e-5)
    assert stats.mcnemar_mid_p(second, first) == stats.mcnemar_mid_p(first, second)


def test_mcnemar_of_many_discordant_images():
    # Agresti, Categorical Data Analysis, approval ratings: z0 = -4.17, p = 0.00003.
    assert stats.mcnemar_mid_p(86, 150) == pytest.approx(3e-5, abs=5e-6)
    assert 0.0 <= stats.mcnemar_mid_p(3000, 9000) < 1e-300


def test_mcnemar_without_a_difference_is_one():
    assert stats.mcnemar_mid_p(0, 0) == 1.0
    assert stats.mcnemar_mid_p(12, 12) == 1.0


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(ValueError, match="found -1 and 2"):
        stats.mcnemar_mid_p(-1, 2)


# Fagerland, Lydersen, Laake, Statistical Analysis of Contingency Tables (2017), chapter 8, the
# Newcombe square-and-add interval of the same two data sets.
@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((1, 1, 7, 12), -0.507, -0.026), ((59, 6, 16, 80), -0.119, -0.005)],
)
def test_paired_difference_as_published(counts, low, high):
    found = stats.paired_difference_interval(*counts)
    assert found == pytest.approx((100 * low, 100 * high), abs=0.05)


def test_paired_difference_turns_round_with_its_arguments():
    low, high = stats.paired_difference_interval(4231, 31, 25, 713)
    turned = stats.paired_difference_interval(4231, 25, 31, 713)
    assert turned == pytest.approx((-high, -low))


def test_paired_difference_of_perfect_models_is_finite():
    low, high = stats.paired_difference_interval(100, 0, 0, 0)
    assert low == pytest.approx(-high)
    assert 0 < high < 10


@pytest.mark.parametrize(
    ("total", "limit", "few"),
    [(200, 1.0, True), (500, 1.0, False), (500, 0.3, True), (2000, 0.3, False),
     (2000, 0.0, True), (200, -50.0, False)],
)  # fmt: skip
def test_a_small_limit_needs_many_images(total, limit, few):
    assert stats.too_few_images(round(0.75 * total), total, limit) is few


def test_paired_difference_refuses_nothing():
    with pytest.raises(ValueError, match="found 0 of 0"):
        stats.paired_difference_interval(0, 0, 0, 0)
    with pytest.raises(ValueError, match="found 5, -1, 0, 0"):
        stats.paired_difference_interval(5, -1, 0, 0)


def test_compare_paired_counts_images():
    fp32 = np.array([True] * 1 + [True] * 7 + [False] * 1 + [False] * 12)
    int8 = np.array([True] * 1 + [False] * 7 + [True] * 1 + [False] * 12)
    found = stats.compare_paired(fp32, int8)
    assert (found.fp32_only_right, found.int8_only_right) == (7, 1)
    assert found.top1_drop == pytest.approx(100 * 6 / 21)
    assert found.p_value == pytest.approx(0.0391, abs=5e-5)
    assert found.top1_drop_interval == stats.paired_difference_interval(1, 7, 1, 12)


def test_compare_paired_refuses_other_images():
    with pytest.raises(ValueError, match=r"found \(2,\) and \(3,\)"):
        stats.compare_paired(np.ones(2, dtype=bool), np.ones(3, dtype=bool))


def test_percentiles_are_measured_values():
    # Nearest rank of 1..100 is the percentile itself.
    assert stats.percentiles(np.arange(100, 0, -1.0)) == stats.Percentiles(50.0, 90.0, 99.0)
    assert stats.percentiles([15.0, 20.0, 35.0, 40.0, 50.0]) == stats.Percentiles(35.0, 50.0, 50.0)
    assert stats.percentiles([3.5]) == stats.Percentiles(3.5, 3.5, 3.5)


def test_percentiles_need_samples():
    with pytest.raises(ValueError, match="at least one sample"):
        stats.percentiles([])


def test_paired_ratio_as_published():
    # Student (1908), hours of sleep gained: paired differences with mean 1.58 and 95% interval
    # 0.7001142 to 2.4598858; here they are differences of logarithms.
    gained = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    drift = [math.exp(-0.3 * i) for i in range(10)]
    int8 = [d * math.exp(g) for d, g in zip(drift, gained, strict=True)]
    found = stats.paired_ratio(drift, int8)
    assert math.log(found.value) == pytest.approx(1.58)
    assert found.interval is not None
    assert [math.log(bound) for bound in found.interval] == pytest.approx([0.7001142, 2.4598858])


def test_paired_ratio_is_the_ratio_of_the_mean_throughputs():
    fp32, int8 = [95.0, 103.0, 99.0], [310.0, 330.0, 300.0]
    expected = stats.mean_throughput(int8) / stats.mean_throughput(fp32)
    assert stats.paired_ratio(fp32, int8).value == pytest.approx(expected)


def test_paired_ratio_of_one_round_has_no_interval():
    assert stats.paired_ratio([100.0], [250.0]) == stats.Ratio(pytest.approx(2.5), None)


def test_paired_ratio_refuses_what_cannot_be_paired():
    with pytest.raises(ValueError, match="found 2 FP32 and 1 INT8"):
        stats.paired_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="positive, finite images/s"):
        stats.paired_ratio([1.0, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="one or more"):
        stats.paired_ratio([], [])


@given(st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=300))
def test_histogram_counts_every_latency(samples):
    found = stats.latency_histogram(samples)
    assert sum(found.counts) == len(samples)
    assert len(found.edges_ms) == len(found.counts) + 1 <= stats.MAX_BINS + 1
    assert list(found.edges_ms) == sorted(found.edges_ms)
    assert found.edges_ms[0] <= min(samples) <= max(samples) <= found.edges_ms[-1]


def test_histogram_keeps_its_detail_beside_a_slow_batch():
    rng = np.random.default_rng(1)
    samples = np.append(10 * rng.lognormal(0, 0.05, 500), 100.0)
    found = stats.latency_histogram(samples)
    assert sum(count > 0 for count in found.counts) >= 8


def test_histogram_refuses_impossible_latencies():
    with pytest.raises(ValueError, match="positive, finite latencies"):
        stats.latency_histogram([1.0, math.nan])
    with pytest.raises(ValueError, match="one or more"):
        stats.latency_histogram([])


class TestScoreDifferences:
    """Closeness of scores to those of a reference model."""

    REFERENCE = np.random.default_rng(0).normal(0, 3, (3000, 10)).astype("float32")

    def closeness(self, noise: float) -> closeness.Closeness:
        random = np.random.default_rng(1)
        scores = self.REFERENCE + random.normal(0, noise, self.REFERENCE.shape)
        return closeness.closeness(
            closeness.score_differences(scores.astype("float32"), self.REFERENCE)
        )

    def test_equal_scores(self) -> None:
        shifted = self.REFERENCE + np.float32(4)
        found = closeness.closeness(closeness.score_differences(shifted, self.REFERENCE))
        assert found.signal_to_noise_db > 100
        assert (found.same_top1, found.divergence) == (100, pytest.approx(0, abs=1e-9))

    @pytest.mark.parametrize("noise", [0.03, 0.3])
    def test_known_noise(self, noise: float) -> None:
        found = self.closeness(noise)
        expected = 20 * math.log10(3 / noise)
        low, high = found.signal_to_noise_interval
        assert low < found.signal_to_noise_db < high < low + 0.5
        assert found.signal_to_noise_db == pytest.approx(expected, abs=0.2)
        low, high = found.divergence_interval
        assert 0 < low < found.divergence < high

    def test_more_noise_is_further_away(self) -> None:
        near, far = self.closeness(0.1), self.closeness(1.0)
        assert near.signal_to_noise_db > far.signal_to_noise_db + 15
        assert near.same_top1 > far.same_top1
        assert near.divergence < far.divergence

    def test_divergence_is_that_of_scipy(self) -> None:
        random = np.random.default_rng(2)
        one, other = random.normal(0, 2, (2, 40, 7)).astype("float32")
        found = closeness.score_differences(one, other).divergence
        expected = entropy(softmax(other, axis=1), softmax(one, axis=1), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)

    def test_cross_entropy_is_that_of_the_probability_of_the_label(self) -> None:
        labels = np.arange(3000) % 10
        found = closeness.cross_entropy(self.REFERENCE, labels)
        chosen = softmax(self.REFERENCE, axis=1)[np.arange(3000), labels]
        np.testing.assert_allclose(found, -np.log(chosen), rtol=1e-4, atol=1e-6)


class TestIndependentRatio:
    def test_interval_is_welchs(self) -> None:
        """Against the formula of Welch and Satterthwaite."""
        first, second = (100.0, 104.0, 98.0, 101.0), (80.0, 83.0, 79.0)
        found = independent_ratio(first, second)
        logs = [np.log(rates) for rates in (first, second)]
        parts = [np.var(one, ddof=1) / len(one) for one in logs]
        freedom = sum(parts) ** 2 / sum(
            part**2 / (len(one) - 1) for part, one in zip(parts, logs, strict=True)
        )
        mean = np.mean(logs[1]) - np.mean(logs[0])
        half = student.ppf(0.975, freedom) * math.sqrt(sum(parts))
        assert found.value == pytest.approx(math.exp(mean))
        assert found.interval == pytest.approx((math.exp(mean - half), math.exp(mean + half)))

    def test_a_single_round_has_no_interval(self) -> None:
        assert independent_ratio((100.0, 101.0), (50.0,)).interval is None

    def test_equal_rounds(self) -> None:
        assert independent_ratio((2.0, 2.0), (4.0, 4.0)).interval == pytest.approx((2.0, 2.0))

    @pytest.mark.parametrize("rates", [(), (0.0, 1.0), (float("nan"), 1.0)])
    def test_impossible_rates(self, rates: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="positive, finite"):
            independent_ratio(rates, (1.0, 2.0))
