"""Divides the error of quantization into the parts of weights and of activations."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from paddle.static import Program

from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE
from job.engine.quantize.graph import Graph
from job.engine.quantize.measurement import Images, Model
from job.stats.closeness import decibels, score_differences

# Images that are compared. The fake-quantized program runs op by op, so each takes a second.
COMPARED = 32


def scores_of(
    model: Model, logits: str, images: Images, progress: Callable[[int], None]
) -> np.ndarray:
    """Return the scores, float32 [N, classes], of all images."""
    batches: list[np.ndarray] = []

    def receive(values: Mapping[str, np.ndarray]) -> None:
        batches.append(np.array(values[logits]))
        progress(len(batches[-1]))

    model.run([logits], images, receive)
    return np.concatenate(batches)


def error_parts(
    quantized: Model,
    logits: str,
    images: Images,
    reference: np.ndarray,
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Return the signal-to-noise ratios of quantized weights and of quantized activations.

    Args:
        quantized: the calibrated fake-quantized program.
        logits: variable of the scores.
        images: images to compare.
        reference: FP32 scores of these images, [N, classes].
        progress: receives the number of images of each batch, in two passes.

    Returns:
        In dB. ``weights_db``: quantized weights with FP32 activations, against FP32.
        ``activations_db``: quantized weights and activations, against quantized weights with FP32
        activations.
    """
    weights_only = replace(quantized, program=with_fp32_activations(quantized.program))
    weights = scores_of(weights_only, logits, images, progress)
    both = scores_of(quantized, logits, images, progress)
    return {"weights_db": ratio(weights, reference), "activations_db": ratio(both, weights)}


def ratio(scores: np.ndarray, reference: np.ndarray) -> float:
    """Return the signal-to-noise ratio of scores [N, classes], in dB."""
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
