"""What must be set right in a fake-quantized program before Paddle's passes make INT8 of it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from paddle import static
from paddle.static import Program

from job.engine.programs import write_variables
from job.engine.quantization import DEQUANTIZE, QUANTIZE

UNSIGNED = ("relu", "relu6", "sigmoid", "hard_sigmoid")
KEEPING_SIGN = ("pool2d", "concat", "dropout", "reshape2", "transpose2", "flatten_contiguous_range")
# An axis means nothing between operands of equal shape, but the folding pass refuses this one.
NOT_FOLDED_AXIS = 2
UNSIGNED_MAX, SIGNED_MAX = 255.0, 127.0


class Graph:
    """Producers of a program's variables, seen through quantize/dequantize pairs."""

    def __init__(self, program: Program) -> None:
        self.block = program.global_block()
        self.producers = {n: op for op in self.block.ops for n in op.output_arg_names}

    def source(self, name: str):
        """The op that computes ``name``, or None for inputs and weights."""
        op = self.producers.get(name)
        while op is not None and op.type in (QUANTIZE, DEQUANTIZE):
            op = self.producers.get(op.input("X")[0])
        return op

    def is_unsigned(self, name: str) -> bool:
        """Whether ``name`` holds no negative values, so that Paddle quantizes it to u8."""
        op = self.source(name)
        if op is None or op.type in UNSIGNED:
            return op is not None
        if op.type not in KEEPING_SIGN:
            return False
        inputs = [n for n in op.input_arg_names if not self.block.var(n).persistable]
        return all(self.is_unsigned(n) for n in inputs)

    def scale_of(self, name: str) -> str | None:
        """The scale variable of the pair behind variable ``name``."""
        for op in self.block.ops:
            if op.type == QUANTIZE and op.input("X")[0] == name:
                return op.input("Scale")[0]
        return None


def residual_adds(graph: Graph) -> Iterator[Any]:
    """The adds of two activations; adds of a bias are none."""
    for op in graph.block.ops:
        of_weight = any(graph.block.var(name).persistable for name in op.input_arg_names)
        if op.type == "elementwise_add" and not of_weight:
            yield op


def signed_residuals(program: Program) -> Iterator[tuple[str, str]]:
    """Outputs of relu(add(a, b)) with both a and b signed: (output, its scale variable).

    oneDNN's convolution with a folded add writes the type of its residual operand. Behind a relu
    Paddle computes the output's scale for u8, 255 steps; with a signed operand the values are then
    written as s8 and everything above 127 steps, half the range, is cut off.
    """
    graph = Graph(program)
    adds = {op.output("Out")[0]: op for op in residual_adds(graph)}
    for op in program.global_block().ops:
        if op.type not in ("relu", "relu6"):
            continue
        source = graph.source(op.input("X")[0])
        add = adds.get(source.output_arg_names[0]) if source is not None else None
        if add is None or any(graph.is_unsigned(name) for name in add.input_arg_names):
            continue
        scale = graph.scale_of(op.output("Out")[0])
        if scale is not None:
            yield op.output("Out")[0], scale


def keep_unsigned_residuals_apart(program: Program) -> list[str]:
    """Keep oneDNN from folding adds of an unsigned residual whose sum may be negative.

    The convolution would write the sum in its residual's type, u8, and cut it off at zero. As an
    op of its own the add runs in INT8 and is right. Returns the sums' names.
    """
    graph = Graph(program)
    readers = {n: op.type for op in graph.block.ops for n in op.input_arg_names}
    apart = []
    for add in residual_adds(graph):
        output = add.output("Out")[0]
        unsigned = [graph.is_unsigned(name) for name in add.input_arg_names]
        if any(unsigned) and not all(unsigned) and readers.get(output) not in ("relu", "relu6"):
            add._set_attr("axis", NOT_FOLDED_AXIS)
            apart.append(output)
    return apart


def widen_signed_residuals(program: Program, scope: static.Scope) -> list[str]:
    """Scale such outputs so that 127 steps span their range; returns their names."""
    changed = []
    for output, scale in signed_residuals(program):
        value = np.array(scope.find_var(scale).get_tensor())
        widened = value * np.float32(UNSIGNED_MAX / SIGNED_MAX)
        write_variables(scope, {scale: widened})
        changed.append(output)
    return changed


def skip_pools(program: Program, widened: Sequence[str]) -> dict[str, str]:
    """Keep the pools in FP32 that have no INT8 kernel; output -> reason."""
    graph = Graph(program)
    skipped = {}
    for op in program.global_block().ops:
        if op.type != "pool2d" or op.has_attr("skip_quant"):
            continue
        source = graph.source(op.input("X")[0])
        sides = graph.block.var(op.input("X")[0]).shape[2:]
        if source is not None and set(source.output_arg_names) & set(widened):
            reason = "its input is a signed residual sum, for which oneDNN has no pooling kernel"
        elif op.attr("pooling_type") == "avg" and is_global(op, sides):
            reason = "the mean of a whole plane would be rounded to the steps of its largest value"
        elif op.attr("adaptive") and has_uneven_windows(sides, op.attr("ksize")):
            reason = "it is adaptive with windows of different sizes, which oneDNN does not know"
        else:
            continue
        op._set_attr("skip_quant", 1)
        skipped[op.output("Out")[0]] = reason
    return skipped


def is_global(op: Any, sides: Sequence[int]) -> bool:
    """Whether a pool's window is its whole input."""
    whole = [1, 1] if op.attr("adaptive") else list(sides)
    return op.attr("global_pooling") or list(op.attr("ksize")) == whole


def has_uneven_windows(sides: Sequence[int], outputs: Sequence[int]) -> bool:
    """Whether an adaptive pool's output is no whole fraction of its input."""
    return any(side % output != 0 for side, output in zip(sides, outputs, strict=True))
