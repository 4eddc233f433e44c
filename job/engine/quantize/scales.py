"""Scales of a fake-quantized program: what they belong to, and their first values."""

from collections.abc import Mapping

import numpy as np
from paddle import static
from paddle.static import Program

from job.engine.quantize.fake_quantize import DEFAULT_SCALE_FLOOR, QUANTIZE, measures_images


def warm_averages(
    training: Program, scales: Mapping[str, np.ndarray], moving_rate: float
) -> dict[str, np.ndarray]:
    """Return state and sum of each moving average, as their limits for many equal batches."""
    state = np.array([1.0 / (1.0 - moving_rate)], "float32")
    values = {}
    for op in training.global_block().ops:
        if not measures_images(op):
            continue
        scale = op.input("Scale")[0]
        if scale in scales:
            values[op.input("InState")[0]] = state
            values[op.input("InAccum")[0]] = state * scales[scale]
    return values


def scale_sources(program: Program) -> dict[str, str]:
    """Return scale variable -> quantized variable, for every quantize op."""
    return {
        op.input("Scale")[0]: op.input("X")[0]
        for op in program.global_block().ops
        if op.type == QUANTIZE
    }


def weight_scales(program: Program, scope: static.Scope) -> dict[str, np.ndarray]:
    """Return the largest magnitude of each quantized weight, float32 [channels] or [1]."""
    scales = {}
    block = program.global_block()
    for op in block.ops:
        if op.type != QUANTIZE or not block.var(op.input("X")[0]).persistable:
            continue
        weight = np.abs(np.array(scope.find_var(op.input("X")[0]).get_tensor()))
        axis = op.attr("quant_axis")
        others = tuple(i for i in range(weight.ndim) if i != axis)
        largest = weight.max(axis=others) if axis >= 0 else weight.max().reshape(1)
        scales[op.input("Scale")[0]] = np.maximum(largest, DEFAULT_SCALE_FLOOR).astype("float32")
    return scales
