"""Rounds the weights of a layer, and corrects the shift of its mean output."""

from collections.abc import Sequence

import numpy as np

from job.engine.quantize.fake_quantize import DEFAULT_SCALE_FLOOR
from job.engine.quantize.gptq import LEVELS, blocks_of, round_weights
from job.engine.quantize.layers import Layer
from job.engine.quantize.moments import Mean

# Multiplications of GPTQ that take about as long as an image of 224 pixels in a pass of ResNet50.
MULTIPLICATIONS_PER_STEP = 8e9


def rounding_steps(layer: Layer, outputs: int) -> int:
    """Return how many calibration images take as long as rounding a weight; at least 1.

    The factor of a covariance of n inputs needs n^3 multiplications, and each output n^2 / 2.

    Args:
        layer: a layer that reads the weight.
        outputs: number of outputs of all groups.
    """
    sizes = [block.stop - block.start for block in blocks_of(layer.inputs)]
    needed = sum(layer.groups * size**3 + outputs * size**2 / 2 for size in sizes)
    return max(1, round(needed / MULTIPLICATIONS_PER_STEP))


def scales_of(matrix: np.ndarray, *, per_channel: bool) -> np.ndarray:
    """Return the scale of each output, float32 [groups, outputs].

    Args:
        matrix: weights [groups, outputs, inputs].
        per_channel: one scale per output channel, not one scale for all weights.
    """
    largest = np.abs(matrix).max(axis=2)
    if not per_channel:
        largest = np.full_like(largest, largest.max())
    return np.maximum(largest, DEFAULT_SCALE_FLOOR).astype(np.float32)


def round_to_nearest(weight: np.ndarray, layer: Layer, *, per_channel: bool) -> np.ndarray:
    """Return a weight, float32 of the same shape, with the nearest steps of its scales."""
    matrix = layer.matrix(weight)
    size = (scales_of(matrix, per_channel=per_channel) / LEVELS)[..., np.newaxis]
    return layer.restored(np.rint(matrix / size) * size, weight.shape).astype(np.float32)


def round_by_gptq(
    weight: np.ndarray, layer: Layer, covariances: Sequence[np.ndarray], *, per_channel: bool
) -> np.ndarray:
    """Return a weight whose values are steps of its scales, rounded by GPTQ.

    Args:
        weight: the FP32 weight; the result has its shape.
        layer: a layer that reads it.
        covariances: for each block of inputs, the covariance [groups, inputs, inputs].
        per_channel: one scale per output channel, not one scale for all weights.
    """
    matrix = layer.matrix(weight)
    scales = scales_of(matrix, per_channel=per_channel)
    steps = round_weights(matrix, covariances, scales) * (scales / LEVELS)[..., np.newaxis]
    return layer.restored(steps, weight.shape).astype(np.float32)


def correction(mean: Mean, change: np.ndarray) -> tuple[str, np.ndarray] | None:
    """Return a variable, and the change after which a layer keeps its mean output.

    The change is float64 [outputs]. The result is None if no variable can absorb the shift.

    Args:
        mean: mean input of the layer.
        change: rounded weight minus FP32 weight.
    """
    layer = mean.layer
    if layer.correction is None:
        return None
    name, sign = layer.correction
    shift = layer.matrix(change).astype(np.float64) @ mean.patch()[..., np.newaxis]
    return name, sign * shift.reshape(-1)
