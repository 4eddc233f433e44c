"""Rewrites the fake-quantized model for paddle2onnx, with FP32 weights and a clip per scale."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from paddle.base.proto import framework_pb2

from job.engine.inference.paddle_format import OpDesc, make_op
from job.engine.inference.saved_model import UNSIGNED_ZERO_POINT
from job.engine.rewrites import rules
from job.engine.rewrites.network import (
    DEQUANTIZE,
    QUANTIZE,
    Network,
    attribute,
    names,
    read_network,
)

INT8_MAX = np.float32(127.0)
# Clip number i has the bounds -(FIRST + i) and FIRST + i, which are exact in float32.
FIRST = 2**20


@dataclass
class Weight:
    """A quantized weight.

    Attributes:
        values: int8, in the layout of the op that reads the weight.
        scale: size of one step, float32 [channels] or [1].
        axis: axis of the channels.
    """

    values: np.ndarray
    scale: np.ndarray
    axis: int


class Steps(NamedTuple):
    """The steps of a quantized activation.

    Attributes:
        size: size of one step.
        unsigned: whether the steps begin at zero.
    """

    size: np.float32
    unsigned: bool


def write_with_clips(fake_quantized: Path, target: Path) -> tuple[dict[str, Weight], list[Steps]]:
    """Write the model with FP32 weights and a clip in place of each quantize/dequantize pair.

    The bounds of a clip are the number of its pair, independently of the names that paddle2onnx
    gives to tensors. They are so large that networks do not contain such clips.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        target: prefix to write to.

    Returns:
        The quantized weights by name, and the steps of each clip.
    """
    network = read_network(fake_quantized)
    rules.drop_repeated_ops(network)
    rules.merge_pairs(network)
    rules.drop_idle_pools(network)
    rules.use_unsigned_steps(network)
    weights: dict[str, Weight] = {}
    clips: list[Steps] = []
    renamed: dict[str, str] = {}
    kept: list[OpDesc] = []
    for op in network.ops:
        if op.type not in (QUANTIZE, DEQUANTIZE):
            rename_inputs(op, renamed)
            kept.append(op)
            continue
        (source,), (result,) = names(op.inputs, "X"), names(op.outputs, "Y")
        if op.type == QUANTIZE:
            renamed[result] = renamed.get(source, source)
        elif source in network.values:
            weights[source] = weight(op, network)
            renamed[result] = source
        else:
            kept.append(clip(renamed[source], result, FIRST + len(clips)))
            clips.append(steps(op, network))
    network.ops = kept
    for name, found in weights.items():
        network.store(name, restored(found))
    network.write(target)
    return weights, clips


def weight(op: OpDesc, network: Network) -> Weight:
    """Return the quantized weight that a dequantize op reads."""
    (source,), (scale,) = names(op.inputs, "X"), names(op.inputs, "Scale")
    axis = attribute(op, "quant_axis")
    size = network.values[scale].reshape(-1) / INT8_MAX
    return Weight(
        network.values[source].astype("int8"),
        size.astype("float32"),
        max(0, axis.i if axis is not None else -1),
    )


def restored(weight: Weight) -> np.ndarray:
    """Return a weight's FP32 values, in the shape of ``weight.values``."""
    shape = [-1 if axis == weight.axis else 1 for axis in range(weight.values.ndim)]
    return weight.values.astype("float32") * weight.scale.reshape(shape)


def steps(op: OpDesc, network: Network) -> Steps:
    """Return the steps of the activation that a dequantize op reads."""
    (scale,) = names(op.inputs, "Scale")
    largest = np.float32(network.values[scale].ravel()[0])
    zero = names(op.inputs, "ZeroPoint")
    return Steps(largest / INT8_MAX, bool(zero) and zero[0].endswith(UNSIGNED_ZERO_POINT))


def rename_inputs(op: OpDesc, renamed: dict[str, str]) -> None:
    """Rename an op's inputs by ``renamed``."""
    for slot in op.inputs:
        slot.arguments[:] = [renamed.get(name, name) for name in slot.arguments]


def clip(source: str, result: str, bound: int) -> OpDesc:
    """Return a clip from ``-bound`` to ``bound``."""
    made = make_op("clip", {"X": source}, {"Out": result}, {})
    for name, value in (("min", -bound), ("max", bound)):
        made.attrs.add(name=name, type=framework_pb2.FLOAT, f=value)
    return made
