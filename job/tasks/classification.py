"""Classification: one output of scores [N, classes], and one label per image."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job import stats
from job.stats import closeness
from job.tasks.task import LABELS, MODELS, Agreement, Metric, Outputs, Results, Scored, Task

Labels = NDArray[np.int64]
Correct = NDArray[np.bool_]
# Fields of ScoreDifferences.
DIFFERENCES = ("signal", "noise", "divergence", "same_top1")


def results(outputs: Outputs, labels: Labels, reference: Outputs) -> Results:
    """Return per image: predicted class, top-1 and top-5 correctness, differences from FP32.

    Args:
        outputs: scores, float32 [N, classes].
        labels: int64 [N].
        reference: scores of FP32, float32 [N, classes].
    """
    (scores,), (expected,) = outputs, reference
    differences = closeness.score_differences(scores, expected)
    return {
        "choice": scores.argmax(1).astype(np.int64),
        "top1": stats.topk_correct(scores, labels, 1),
        "top5": stats.topk_correct(scores, labels, 5),
        **{field: getattr(differences, field) for field in DIFFERENCES},
    }


def accuracy(found: Mapping[str, Results], labels: Labels) -> dict[str, Any]:
    """Return table I and the comparisons of the models, in percent and in percentage points.

    Args:
        found: model -> its results.
        labels: int64 [N].
    """
    top1 = {name: each["top1"] for name, each in found.items()}
    rows = {name: describe(each["top1"], each["top5"]) for name, each in found.items()}
    return {
        "images": len(labels),
        **{name: rows[name] for name in MODELS},
        "engines": {name: row for name, row in rows.items() if name not in MODELS},
        "paired": paired(top1["fp32"], top1["int8"]),
        "paired_fake": drop(top1["fp32"], top1["qat_fake"]),
        "paired_int8_fake": drop(top1["qat_fake"], top1["int8"]),
        "per_class": per_class(labels, top1["fp32"], top1["int8"]),
        "closeness": {name: closeness_of(found[name]) for name in found if name != "fp32"},
    }


def predictions(found: Mapping[str, Results], labels: Labels) -> dict[str, NDArray[Any]]:
    """Return the labels, and each model's predicted class per image; int64 [N] each."""
    return {"labels": labels, **{name: each["choice"] for name, each in found.items()}}


def describe(top1: Correct, top5: Correct) -> dict[str, Any]:
    """Return one model's row of table I, in percent."""
    first, five = stats.accuracy(top1), stats.accuracy(top5)
    return {
        "top1": first.percent,
        "top5": five.percent,
        "top1_interval": list(first.interval),
        "top5_interval": list(five.interval),
    }


def per_class(labels: Labels, fp32: Correct, int8: Correct) -> list[dict[str, int]]:
    """Return, for each class with test images, the number of images and of correct answers.

    Args:
        labels: int64 [N].
        fp32: whether FP32 was correct, by image.
        int8: whether INT8 was correct, by image.
    """
    labels = np.asarray(labels)
    counts = [np.bincount(labels, weights) for weights in (None, fp32, int8)]
    return [
        {"label": label, "images": int(total), "fp32": int(one), "int8": int(two)}
        for label, (total, one, two) in enumerate(zip(*counts, strict=True))
        if total
    ]


def closeness_of(found: Results) -> dict[str, Any]:
    """Return how close the scores of a model are to the scores of FP32."""
    fields = {field: found[field] for field in DIFFERENCES}
    return asdict(closeness.closeness(closeness.ScoreDifferences(**fields)))


def drop(reference: Correct, model: Correct) -> dict[str, Any]:
    """Return the top-1 drop against a reference in percentage points, with its interval."""
    compared = paired(reference, model)
    return {name: compared[name] for name in ("top1_drop", "top1_drop_interval")}


def paired(fp32: Correct, int8: Correct) -> dict[str, Any]:
    """Compare the top-1 correctness of FP32 and INT8 image by image."""
    comparison = asdict(stats.compare_paired(fp32, int8))
    comparison["top1_drop_interval"] = list(comparison["top1_drop_interval"])
    return comparison


def not_judged(accuracy: Mapping[str, Any], classes: int) -> str:
    """Return why accuracies cannot be compared if FP32 is no better than chance; or empty.

    An INT8 model cannot lose accuracy that FP32 does not have.
    """
    fp32 = accuracy["fp32"]
    if stats.is_above_chance(tuple(fp32["top1_interval"]), classes):
        return ""
    return f"FP32 top-1 is {fp32['top1']:.2f}%, no better than chance ({100 / classes:.3g}%)."


def evaluate(batches: Iterable[Scored]) -> dict[str, float | None]:
    """Return top-1 and top-5 in percent, and the mean cross entropy with the labels.

    Also return the mean Kullback-Leibler divergence of the class probabilities from the
    probabilities of FP32, and the signal-to-noise ratio in decibels; both None without FP32.

    Args:
        batches: scores [N, classes] and labels int64 [N]; at least one image.
    """
    right1 = right5 = count = compared = 0
    entropy = divergence = signal = noise = 0.0
    for batch in batches:
        (scores,), labels = batch.outputs, np.asarray(batch.targets)
        right1 += int(stats.topk_correct(scores, labels, 1).sum())
        right5 += int(stats.topk_correct(scores, labels, 5).sum())
        entropy += float(closeness.cross_entropy(scores, labels).sum())
        if batch.reference is not None:
            difference = closeness.score_differences(scores, batch.reference)
            divergence += float(difference.divergence.sum())
            signal += float(difference.signal.sum())
            noise += float(difference.noise.sum())
            compared += len(labels)
        count += len(labels)
    percent = 100.0 / count
    return {
        "top1": percent * right1,
        "top5": percent * right5,
        "cross_entropy": entropy / count,
        "divergence": divergence / count if compared else None,
        "signal_to_noise_db": closeness.decibels(signal, noise) if compared else None,
    }


def agreement(outputs: Outputs, reference: Outputs, exact: Outputs | None = None) -> Agreement:
    """Compare scores [N, classes] with the scores of a reference model."""
    (scores,), (expected,) = outputs, reference
    found = closeness.score_differences(scores, expected)
    ratio = closeness.decibels(float(found.signal.sum()), float(found.noise.sum()))
    if exact is not None:
        centred = (each - each.mean(axis=1, keepdims=True) for each in (scores, expected, exact[0]))
        ratio = closeness.lower_ratio(ratio, *centred)
    return Agreement(ratio, 100 * float(found.same_top1.mean()))


def right(outputs: Outputs, labels: Labels) -> int:
    """Return the number of images that scores [N, classes] classify correctly."""
    (scores,) = outputs
    return int(stats.topk_correct(scores, labels, 1).sum())


CLASSIFICATION = Task(
    primary=Metric("top1", "top-1"),
    # With labels, training can improve on FP32.
    criteria={"distill": "divergence", "labels": "cross_entropy"},
    results=results,
    accuracy=accuracy,
    predictions=predictions,
    not_judged=not_judged,
    evaluate=evaluate,
    agreement=agreement,
    loss=LABELS,
    right=right,
)
