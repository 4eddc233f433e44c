"""Residual sums that OpenVINO's convolutions can take in at no cost.

As saved, both operands of a residual sum are quantized, each with its own scale. OpenVINO then
scales and clips the convolution's result before it adds the other operand. When the sum is taken in
units of that operand's steps, nothing is left to do but to add: the scale moves into the weights'
scales and the bias of the convolution, and into the bounds of the FakeQuantize behind the sum.
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
        add: the sum.
        port: which operand is the convolution's.
        bias: the add of the convolution's bias.
        weights: the multiplication by the scales of that convolution's weights.
        skip: what quantizes the other operand.
        readers: the same of the other convolutions that read ``skip``, as (input, weights).
    """

    add: ov.Node
    port: int
    bias: ov.Node
    weights: ov.Node
    skip: ov.Node
    readers: list[tuple[ov.Input, ov.Node]]

    @property
    def scale(self) -> float:
        """One step of the other operand."""
        low, high = (bound(self.skip, slot) for slot in (3, 4))
        return (high - low) / (LEVELS - 1)

    @property
    def steps(self) -> tuple[float, float]:
        """Bounds of the other operand, in steps."""
        return UNSIGNED if bound(self.skip, 3) == 0 else SIGNED


def fold_sums(model: ov.Model) -> int:
    """Take residual sums in steps of the operand that is no convolution; returns how many."""
    found = [made for op in model.get_ordered_ops() if (made := foldable(op)) is not None]
    for one in found:
        fold(one)
    return len(found)


def foldable(op: ov.Node) -> Sum | None:
    """The sum that an op is; None if it is none, or if something else reads its operands."""
    if op.get_type_name() != "Add":
        return None
    operands = [value.get_node() for value in op.input_values()]
    if not all(is_quantizer(operand) for operand in operands):
        return None
    for port in (0, 1):
        branch, skip = operands[port], operands[1 - port]
        bias = branch.input_value(0).get_node()
        if not all(has_one_reader(one) for one in (branch, bias)) or is_same(branch, skip):
            continue
        weights = weights_of(bias.input_value(0)) if is_bias(bias) else None
        readers = other_readers(skip, op)
        if weights is not None and readers is not None:
            return Sum(op, port, bias, weights, skip, readers)
    return None


def is_quantizer(op: ov.Node) -> bool:
    """Whether an op is a FakeQuantize of 256 steps with one scale that writes what it reads."""
    return (
        op.get_type_name() == FAKE_QUANTIZE
        and op.get_attributes()["levels"] == LEVELS
        and all(op.input_value(slot).get_node().data.size == 1 for slot in range(1, 5))
        and all(bound(op, slot) == bound(op, slot + 2) for slot in (1, 2))
    )


def is_bias(op: ov.Node) -> bool:
    """Whether an op adds a constant to a convolution's result."""
    return (
        op.get_type_name() == "Add"
        and op.input_value(0).get_node().get_type_name() in CONVOLUTIONS
        and has_one_reader(op.input_value(0).get_node())
        and op.input_value(1).get_node().get_type_name() == "Constant"
    )


def has_one_reader(op: ov.Node) -> bool:
    """Whether one input alone reads what an op computes."""
    return len(op.output(0).get_target_inputs()) == 1


def is_same(one: ov.Node, other: ov.Node) -> bool:
    """Whether two handles are of one op; comparing them with == would make a new op."""
    return one.get_friendly_name() == other.get_friendly_name()


def weights_of(convolution: ov.Output) -> ov.Node | None:
    """The multiplication by the weights' scales; None when it is not the convolution's alone."""
    op = convolution.get_node().input_value(1).get_node()
    while op.get_type_name() == "Reshape" and has_one_reader(op):
        op = op.input_value(0).get_node()
    scaled = op.get_type_name() == "Multiply" and has_one_reader(op)
    return op if scaled and op.input_value(1).get_node().get_type_name() == "Constant" else None


def other_readers(skip: ov.Node, add: ov.Node) -> list[tuple[ov.Input, ov.Node]] | None:
    """The convolutions that read a sum's operand besides it; None if anything else does."""
    readers = []
    for place in skip.output(0).get_target_inputs():
        op = place.get_node()
        if is_same(op, add):
            continue
        if op.get_type_name() not in CONVOLUTIONS or place.get_index() != 0:
            return None
        weights = weights_of(op.output(0))
        if weights is None:
            return None
        readers.append((place, weights))
    return readers


def fold(one: Sum) -> None:
    """Rewrite one sum."""
    scale = one.scale
    in_steps = quantizer(one.skip, slice(1, 3), one.steps)
    for place, weights in one.readers:
        multiply(weights, 1, scale)
        place.replace_source_output(in_steps.output(0))
    multiply(one.weights, 1, 1 / scale)
    multiply(one.bias, 1, 1 / scale)
    one.add.input(1 - one.port).replace_source_output(in_steps.output(0))
    one.add.input(one.port).replace_source_output(one.bias.output(0))
    for place in readers_of(one.add.output(0).get_target_inputs()):
        if place.get_node().get_type_name() == FAKE_QUANTIZE and place.get_index() == 0:
            multiply(place.get_node(), 1, 1 / scale)
            multiply(place.get_node(), 2, 1 / scale)
        else:
            restored = ops.multiply(place.get_source_output(), np.float32(scale))
            place.replace_source_output(restored.output(0))


def readers_of(places: Iterable[ov.Input]) -> list[ov.Input]:
    """Inputs that read a sum, through a relu where there is one."""
    found = []
    for place in places:
        op = place.get_node()
        behind = op.output(0).get_target_inputs() if op.get_type_name() == "Relu" else None
        found += [place] if behind is None else readers_of(behind)
    return found


def quantizer(like: ov.Node, kept: slice, bounds: tuple[float, float]) -> ov.Node:
    """A FakeQuantize of the same input that gives steps instead of values."""
    low, high = like.input_values()[kept]
    steps = [ops.constant(np.full([1, 1, 1, 1], bound, "float32")) for bound in bounds]
    made = ops.fake_quantize(like.input_value(0), low, high, *steps, LEVELS)
    made.set_friendly_name(like.get_friendly_name())
    return made


def multiply(op: ov.Node, slot: int, factor: float) -> None:
    """Multiply a constant operand; others that share it keep it as it is."""
    values = op.input_value(slot).get_node().data * np.float32(factor)
    op.input(slot).replace_source_output(ops.constant(values.astype("float32")).output(0))


def bound(op: ov.Node, slot: int) -> float:
    """A bound of a FakeQuantize with one scale."""
    return float(op.input_value(slot).get_node().data.ravel()[0])
