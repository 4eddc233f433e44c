"""Closeness of a model's scores to the scores of a reference model, with 95% intervals."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.stats import Interval, wilson_interval

# Reported for equal scores, because JSON has no infinity.
MAX_DECIBELS = 200.0
# Samples of a bootstrap.
RESAMPLES = 1000
# A model has lost the differences between images if its ratio of :func:`between_images` against the
# reference model is this many decibels below the same ratio of the reference model against FP32.
# Correct INT8 models on CPUs without AVX512_VNNI lost up to 14 dB.
LOST = 15.0
# Images whose scores are compared together, which bounds the memory.
ROWS = 1024


@dataclass(frozen=True)
class ScoreDifferences:
    """Differences of a model's scores from the scores of a reference model, per image.

    Attributes:
        signal: power of the reference scores after subtracting their mean, float64 [N].
        noise: power of the differences after subtracting their mean, float64 [N]. The mean score of
            an image changes neither the order of the classes nor their probabilities.
        divergence: Kullback-Leibler divergence of the class probabilities from the reference's, in
            nats, float64 [N].
        same_top1: whether both models choose the same class, bool [N].
    """

    signal: NDArray[np.float64]
    noise: NDArray[np.float64]
    divergence: NDArray[np.float64]
    same_top1: NDArray[np.bool_]


@dataclass(frozen=True)
class Closeness:
    """Closeness of a model's scores to the scores of a reference model.

    Attributes:
        signal_to_noise_db: see :func:`decibels`; with a bootstrap interval over images.
        same_top1: images with the same class, in percent; with a Wilson interval.
        divergence: mean Kullback-Leibler divergence, in nats; with a bootstrap interval.
    """

    signal_to_noise_db: float
    signal_to_noise_interval: Interval
    same_top1: float
    same_top1_interval: Interval
    divergence: float
    divergence_interval: Interval


def closeness(differences: ScoreDifferences) -> Closeness:
    """Summarize the differences of at least one image."""
    signal, noise, divergence = (
        np.asarray(differences.signal),
        np.asarray(differences.noise),
        np.asarray(differences.divergence),
    )
    same, count = int(differences.same_top1.sum()), len(signal)
    random = np.random.default_rng(0)
    ratios, means = [], []
    for _ in range(RESAMPLES):
        chosen = random.integers(0, count, count)
        ratios.append(decibels(float(signal[chosen].sum()), float(noise[chosen].sum())))
        means.append(float(divergence[chosen].mean()))
    ends = [2.5, 97.5]
    return Closeness(
        decibels(float(signal.sum()), float(noise.sum())),
        _pair(np.percentile(ratios, ends)),
        100.0 * same / count,
        wilson_interval(same, count),
        float(divergence.mean()),
        _pair(np.percentile(means, ends)),
    )


def _pair(values: NDArray[np.float64]) -> Interval:
    return float(values[0]), float(values[1])


def score_differences(
    scores: NDArray[np.float32], reference: NDArray[np.float32]
) -> ScoreDifferences:
    """Compare scores [N, classes] with the scores of a reference model."""
    parts = [
        _differences(scores[start : start + ROWS], reference[start : start + ROWS])
        for start in range(0, len(scores), ROWS)
    ]
    fields = ("signal", "noise", "divergence", "same_top1")
    return ScoreDifferences(*(np.concatenate([getattr(p, f) for p in parts]) for f in fields))


def _differences(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> ScoreDifferences:
    found, expected = scores.astype(np.float64), reference.astype(np.float64)
    log_found, log_expected = log_probabilities(found), log_probabilities(expected)
    centred = expected - expected.mean(axis=1, keepdims=True)
    change = found - expected
    change -= change.mean(axis=1, keepdims=True)
    return ScoreDifferences(
        np.square(centred).sum(axis=1),
        np.square(change).sum(axis=1),
        (np.exp(log_expected) * (log_expected - log_found)).sum(axis=1),
        scores.argmax(axis=1) == reference.argmax(axis=1),
    )


def log_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithms of the class probabilities (softmax) of scores [N, classes]."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    logarithms: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logarithms


def cross_entropy(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cross entropy of each image, float64 [N], in nats."""
    probabilities = log_probabilities(scores.astype(np.float64))
    chosen: NDArray[np.float64] = -probabilities[np.arange(len(labels)), labels]
    return chosen


def decibels(signal: float, noise: float) -> float:
    """Return a signal-to-noise ratio in decibels, within -200 to 200."""
    if not math.isfinite(noise):
        return -MAX_DECIBELS
    if noise == 0:
        return MAX_DECIBELS
    return min(MAX_DECIBELS, max(-MAX_DECIBELS, 10 * math.log10(max(signal, 1e-30) / noise)))


def lower_ratio(
    ratio: float, values: NDArray[Any], reference: NDArray[Any], exact: NDArray[Any]
) -> float:
    """Return the ratio of the differences between images if a model lost them; else ``ratio``.

    A large part that all images share, such as the bias of the last layer, hides in ``ratio`` that
    a model computes nothing from its images. But the differences between images can also be too
    small for any quantized model. They are judged only if the reference model kept them.

    Args:
        ratio: signal-to-noise ratio of a model against the reference model, in decibels.
        values: outputs of the model, [N, values per image].
        reference: the same of the reference model, which is quantized, too.
        exact: the same of FP32.
    """
    found, kept = between_images(values, reference), between_images(reference, exact)
    return min(ratio, found) if found < kept - LOST else ratio


def between_images(values: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the signal-to-noise ratio without the means over images, in decibels.

    Args:
        values: [N, values per image].
        reference: the same of the reference model.
    """
    found, expected = (each - each.mean(axis=0, dtype=np.float64) for each in (values, reference))
    return decibels(float(np.square(expected).sum()), float(np.square(found - expected).sum()))
