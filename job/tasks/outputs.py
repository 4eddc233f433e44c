"""Outputs: networks that are compared by the signal-to-noise ratio of their outputs only.

Nothing is known about the images, so these networks cannot be trained, and have no accuracy.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.stats import closeness
from job.tasks.task import NONE, Agreement, Metric, Outputs, Results, Scored, Targets, Task, flat

KEY = "signal_to_noise_db"


def results(
    outputs: Outputs,
    targets: Targets,  # noqa: ARG001
    reference: Outputs,
) -> Results:
    """Return per image the differences of the outputs from the outputs of FP32.

    Args:
        outputs: the outputs of a batch; the first axis is the image.
        targets: not used.
        reference: the same outputs of FP32.
    """
    signal, noise = powers(flat(outputs), flat(reference))
    return {"signal": signal, "noise": noise}


def powers(
    values: NDArray[Any], reference: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return per image the power of a reference and the power of the differences from it.

    Args:
        values: [N, values per image].
        reference: the same of the reference model.
    """
    expected = reference.astype(np.float64)
    return np.square(expected).sum(axis=1), np.square(values - expected).sum(axis=1)


def accuracy(found: Mapping[str, Results], targets: Targets) -> dict[str, Any]:
    """Return the number of images, and how close the outputs of each model are to FP32.

    Args:
        found: model -> its results.
        targets: one value per image.
    """
    return {
        "images": len(targets),
        "closeness": {name: closeness_of(found[name]) for name in found if name != "fp32"},
    }


def closeness_of(found: Results) -> dict[str, float]:
    """Return the signal-to-noise ratio of a model's outputs against FP32."""
    signal, noise = (float(found[name].sum()) for name in ("signal", "noise"))
    return {"signal_to_noise_db": closeness.decibels(signal, noise)}


def agreement(outputs: Outputs, reference: Outputs, exact: Outputs | None = None) -> Agreement:
    """Compare the outputs of a model with the outputs of a reference model."""
    values, expected = flat(outputs), flat(reference)
    signal, noise = powers(values, expected)
    ratio = closeness.decibels(float(signal.sum()), float(noise.sum()))
    if exact is not None:
        # Each output is judged alone, because a large output hides that a small one is wrong.
        for each in zip(outputs, reference, exact, strict=True):
            ratio = closeness.lower_ratio(ratio, *(flat((values,)) for values in each))
    return Agreement(ratio, None)


def predictions(
    found: Mapping[str, Results],
    targets: Targets,  # noqa: ARG001
) -> dict[str, NDArray[Any]]:
    """Return per image the power of differences, MODEL.noise, and of FP32, signal; float64 [N]."""
    return {
        "signal": found["fp32"]["signal"],
        **{f"{name}.noise": each["noise"] for name, each in found.items() if name != "fp32"},
    }


def not_judged(accuracy: Mapping[str, Any], classes: int) -> str:  # noqa: ARG001
    """Return an empty text, because outputs can always be compared."""
    return ""


def evaluate(batches: Iterable[Scored]) -> dict[str, float | None]:
    """Return the signal-to-noise ratio in decibels; None without outputs of FP32."""
    both = [
        powers(flat(batch.outputs), batch.reference)
        for batch in batches
        if batch.reference is not None
    ]
    if not both:
        return {KEY: None}
    signal, noise = (float(sum(each[part].sum() for each in both)) for part in (0, 1))
    return {KEY: closeness.decibels(signal, noise)}


OUTPUTS = Task(
    primary=Metric(KEY, "signal-to-noise ratio"),
    criteria={},
    results=results,
    accuracy=accuracy,
    predictions=predictions,
    not_judged=not_judged,
    evaluate=evaluate,
    agreement=agreement,
    loss=NONE,
)
