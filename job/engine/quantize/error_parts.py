"""Divides the error of quantization into the parts of weights and of activations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from paddle.static import Program

from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE
from job.engine.quantize.graph import Graph
from job.engine.quantize.measurement import Images, Model
from job.stats.closeness import decibels, score_differences
from job.tasks.task import flat

# Images that are compared. The fake-quantized program runs op by op, so each takes a second.
COMPARED = 32


def outputs_of(
    model: Model, outputs: Sequence[str], images: Images, progress: Callable[[int], None]
) -> np.ndarray:
    """Return the values of all outputs in one row per image, float32 [N, values]."""
    batches: list[np.ndarray] = []

    def receive(values: Mapping[str, np.ndarray]) -> None:
        batches.append(flat(tuple(values[name] for name in outputs)))
        progress(len(batches[-1]))

    model.run(outputs, images, receive)
    return np.concatenate(batches)


def error_parts(
    quantized: Model,
    outputs: Sequence[str],
    images: Images,
    reference: np.ndarray,
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Return the signal-to-noise ratios of quantized weights and of quantized activations.

    Args:
        quantized: the calibrated fake-quantized program.
        outputs: names of the outputs.
        images: images to compare.
        reference: FP32 outputs of these images, see :func:`outputs_of`.
        progress: receives the number of images of each batch, in two passes.

    Returns:
        In dB. ``weights_db``: quantized weights with FP32 activations, against FP32.
        ``activations_db``: quantized weights and activations, against quantized weights with FP32
        activations.
    """
    weights_only = replace(quantized, program=with_fp32_activations(quantized.program))
    weights = outputs_of(weights_only, outputs, images, progress)
    both = outputs_of(quantized, outputs, images, progress)
    return {"weights_db": ratio(weights, reference), "activations_db": ratio(both, weights)}


def ratio(scores: np.ndarray, reference: np.ndarray) -> float:
    """Return the signal-to-noise ratio of outputs [N, values], in dB."""
    found = score_differences(scores, reference)
    return decibels(float(found.signal.sum()), float(found.noise.sum()))


def with_fp32_activations(quantized: Program) -> Program:
    """Return a copy of a fake-quantized program in which only weights are quantized."""
    program = quantized.clone(for_test=True)
    graph = Graph(program)
    for op in graph.block.ops:
        if op.type in (QUANTIZE, DEQUANTIZE):
            continue
        for name in op.input_arg_names:
            plain = graph.plain(name)
            if not graph.block.var(plain).persistable:
                op._rename_input(name, plain)
    return program
