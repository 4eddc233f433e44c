"""Comparison of throughputs that were measured independently, such as in two runs."""

import math
from collections.abc import Sequence

import numpy as np

from job.stats import Ratio


def independent_ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Return the throughput of ``second`` over ``first`` with its 95% interval.

    The ratio is the ratio of the geometric means. The interval is Welch's t interval (Welch 1947,
    Biometrika 34:28) of the difference of the mean logarithms, because the rounds are not paired.

    Args:
        first: images/s of each round.
        second: images/s of each round of the other measurement.

    Returns:
        The ratio. The interval is None if one of the measurements has a single round.

    Raises:
        ValueError: there are no rounds, or a rate is not positive and finite.
    """
    both = [np.asarray(rates, dtype=np.float64) for rates in (first, second)]
    if not all(rates.size and np.all(np.isfinite(rates) & (rates > 0)) for rates in both):
        raise ValueError("expected one or more rounds with positive, finite images/s")
    logs = [np.log(rates) for rates in both]
    mean = float(np.mean(logs[1]) - np.mean(logs[0]))
    if min(one.size for one in logs) < 2:
        return Ratio(math.exp(mean), None)
    if not any(np.ptp(one) for one in logs):
        return Ratio(math.exp(mean), (math.exp(mean), math.exp(mean)))
    from scipy.stats import ttest_ind

    bounds = ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(0.95)
    return Ratio(math.exp(mean), (math.exp(float(bounds.low)), math.exp(float(bounds.high))))
