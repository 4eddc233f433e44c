"""Rewrites residual sums so that OpenVINO fuses them into convolutions without extra operations.

In the saved model, one operand of a residual sum is the result of a convolution, and the other one
is quantized. OpenVINO then scales the convolution's result and the other operand before it adds
them. In the rewritten model, the sum is computed in steps of the other operand, so that only the
addition remains. The scale is folded into the weight scales and the bias of the convolution, and
into the bounds of the FakeQuantize after the sum.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as ops

CONVOLUTIONS = ("Convolution", "GroupConvolution")
FAKE_QUANTIZE = "FakeQuantize"
LEVELS = 256
UNSIGNED, SIGNED = (0.0, 255.0), (-128.0, 127.0)


@dataclass(frozen=True)
class Sum:
    """A residual sum that can be folded.

    Attributes:
        add: the op of the sum.
        port: index of the operand that is the convolution's result.
        bias: add of the convolution's bias.
        weights: multiplication of the convolution's weights by their scales.
        skip: FakeQuantize of the other operand.
        readers: (input, ``weights`` as above) of the other convolutions that read ``skip``.
    """

    add: ov.Node
    port: int
    bias: ov.Node
    weights: ov.Node
    skip: ov.Node
    readers: list[tuple[ov.Input, ov.Node]]

    @property
    def scale(self) -> float:
        """Size of one step of the other operand."""
        low, high = (bound(self.skip, slot) for slot in (3, 4))
        return (high - low) / (LEVELS - 1)

    @property
    def steps(self) -> tuple[float, float]:
        """Bounds of the other operand, in steps."""
        return UNSIGNED if bound(self.skip, 3) == 0 else SIGNED


def fold_sums(model: ov.Model) -> int:
    """Rewrite all residual sums that can be folded; return their number."""
    sums = [made for op in model.get_ordered_ops() if (made := foldable(op)) is not None]
    for each in sums:
        fold(each)
    return len(sums)


def foldable(op: ov.Node) -> Sum | None:
    """Return an op as a foldable sum; None for other ops and if other ops read its operands."""
    if op.get_type_name() != "Add":
        return None
    operands = [value.get_node() for value in op.input_values()]
    for port in (0, 1):
        bias, skip = operands[port], operands[1 - port]
        if not (is_bias(bias) and has_one_reader(bias) and is_quantizer(skip)):
            continue
        weights = weights_of(bias.input_value(0))
        readers = other_readers(skip, op)
        if weights is not None and readers is not None:
            return Sum(op, port, bias, weights, skip, readers)
    return None


def is_quantizer(op: ov.Node) -> bool:
    """Return whether an op is a FakeQuantize with 256 levels, one scale, and equal in and out."""
    return (
        op.get_type_name() == FAKE_QUANTIZE
        and op.get_attributes()["levels"] == LEVELS
        and all(op.input_value(slot).get_node().data.size == 1 for slot in range(1, 5))
        and all(bound(op, slot) == bound(op, slot + 2) for slot in (1, 2))
    )


def is_bias(op: ov.Node) -> bool:
    """Return whether an op adds a constant to a convolution's result."""
    return (
        op.get_type_name() == "Add"
        and op.input_value(0).get_node().get_type_name() in CONVOLUTIONS
        and has_one_reader(op.input_value(0).get_node())
        and op.input_value(1).get_node().get_type_name() == "Constant"
    )


def has_one_reader(op: ov.Node) -> bool:
    """Return whether exactly one input reads an op's output."""
    return len(op.output(0).get_target_inputs()) == 1


def is_same(one: ov.Node, other: ov.Node) -> bool:
    """Return whether two handles refer to the same op; == would create a new op."""
    return one.get_friendly_name() == other.get_friendly_name()


def weights_of(convolution: ov.Output) -> ov.Node | None:
    """Return a convolution's multiplication of weights by scales; None if other ops read it."""
    op = convolution.get_node().input_value(1).get_node()
    while op.get_type_name() == "Reshape" and has_one_reader(op):
        op = op.input_value(0).get_node()
    scaled = op.get_type_name() == "Multiply" and has_one_reader(op)
    return op if scaled and op.input_value(1).get_node().get_type_name() == "Constant" else None


def other_readers(skip: ov.Node, add: ov.Node) -> list[tuple[ov.Input, ov.Node]] | None:
    """Return the convolutions that also read a sum's operand; None if another op reads it."""
    readers = []
    for target in skip.output(0).get_target_inputs():
        op = target.get_node()
        if is_same(op, add):
            continue
        if op.get_type_name() not in CONVOLUTIONS or target.get_index() != 0:
            return None
        weights = weights_of(op.output(0))
        if weights is None:
            return None
        readers.append((target, weights))
    return readers


def fold(residual: Sum) -> None:
    """Rewrite one sum."""
    scale = residual.scale
    in_steps = quantizer(residual.skip, slice(1, 3), residual.steps)
    for target, weights in residual.readers:
        multiply(weights, 1, scale)
        target.replace_source_output(in_steps.output(0))
    multiply(residual.weights, 1, 1 / scale)
    multiply(residual.bias, 1, 1 / scale)
    residual.add.input(1 - residual.port).replace_source_output(in_steps.output(0))
    for target in readers_of(residual.add.output(0).get_target_inputs()):
        if target.get_node().get_type_name() == FAKE_QUANTIZE and target.get_index() == 0:
            multiply(target.get_node(), 1, 1 / scale)
            multiply(target.get_node(), 2, 1 / scale)
        else:
            restored = ops.multiply(target.get_source_output(), np.float32(scale))
            target.replace_source_output(restored.output(0))


def readers_of(targets: Iterable[ov.Input]) -> list[ov.Input]:
    """Return the inputs that read a sum, directly or after relus."""
    readers = []
    for target in targets:
        op = target.get_node()
        behind = op.output(0).get_target_inputs() if op.get_type_name() == "Relu" else None
        readers += [target] if behind is None else readers_of(behind)
    return readers


def quantizer(like: ov.Node, kept: slice, bounds: tuple[float, float]) -> ov.Node:
    """Return a FakeQuantize of the same input that writes steps instead of values.

    Args:
        like: the original FakeQuantize.
        kept: slots of its input bounds.
        bounds: lower and upper bound of the steps.
    """
    low, high = like.input_values()[kept]
    steps = [ops.constant(np.full([1, 1, 1, 1], bound, "float32")) for bound in bounds]
    made = ops.fake_quantize(like.input_value(0), low, high, *steps, LEVELS)
    made.set_friendly_name(like.get_friendly_name())
    return made


def multiply(op: ov.Node, slot: int, factor: float) -> None:
    """Multiply a constant operand of an op; other ops keep the original constant."""
    values = op.input_value(slot).get_node().data * np.float32(factor)
    op.input(slot).replace_source_output(ops.constant(values.astype("float32")).output(0))


def bound(op: ov.Node, slot: int) -> float:
    """Return a bound of a FakeQuantize with one scale."""
    return float(op.input_value(slot).get_node().data.ravel()[0])
