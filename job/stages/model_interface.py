"""Reads what a program needs to call a saved model: names, and the meaning of the output."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.tasks.task import Outputs

# Rounding in INT8 softmax changes a sum of probabilities by less than this.
MAX_SUM_ERROR = 0.02


def interface(prefix: Path, mode: str, images: NDArray[np.float32]) -> dict[str, Any]:
    """Load a saved model into Paddle Inference and describe its input and output.

    Args:
        prefix: path of the model without suffix.
        mode: mode of the predictor, such as ``int8``.
        images: float32 [N, C, H, W].

    Returns:
        ``input`` and ``output``, the names of the first input and output, and ``probabilities``,
        whether the output is already a distribution over the classes. If there are several outputs,
        also ``outputs``, the names of all.
    """
    from job.engine.inference.predictor import Predictor, configuration

    model = Predictor(configuration(prefix, mode, threads=1))
    names = list(model.predictor.get_output_names())
    return {
        "input": model.predictor.get_input_names()[0],
        "output": names[0],
        "probabilities": are_probabilities(model.outputs(images)),
        **({"outputs": names} if len(names) > 1 else {}),
    }


def are_probabilities(outputs: Outputs) -> bool:
    """Return whether the only output has rows [N, classes], not negative and with the sum 1."""
    scores = outputs[0]
    if len(outputs) > 1 or scores.ndim != 2:
        return False
    sums = scores.sum(axis=1)
    return bool((scores >= 0).all() and (np.abs(sums - 1) < MAX_SUM_ERROR).all())
