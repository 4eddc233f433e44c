"""What must be set right in a fake-quantized program before Paddle's passes make INT8 of it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from paddle import static
from paddle.static import Program

from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE
from job.engine.training.programs import write_variables

KEEPING_SIGN = ("pool2d", "dropout", "reshape2", "transpose2", "flatten_contiguous_range")
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
RELUS = {"relu", "relu6"}
# An axis means nothing between operands of equal shape, but the folding pass refuses this one.
NOT_FOLDED_AXIS = 2
# Dimensions of what a convolution leaves.
PLANES = 4
UNSIGNED_MAX, SIGNED_MAX = 255.0, 127.0


class Graph:
    """Producers of a program's variables, seen through quantize/dequantize pairs.

    Attributes:
        readers: the types of the ops that read a variable, pairs included.
    """

    def __init__(self, program: Program) -> None:
        self.block = program.global_block()
        self.producers = {n: op for op in self.block.ops for n in op.output_arg_names}
        self.readers: dict[str, list[str]] = defaultdict(list)
        for op in self.block.ops:
            for name in op.input_arg_names:
                self.readers[name].append(op.type)

    def source(self, name: str):
        """The op that computes ``name``, or None for inputs and weights."""
        op = self.producers.get(name)
        while op is not None and op.type in (QUANTIZE, DEQUANTIZE):
            op = self.producers.get(op.input("X")[0])
        return op

    def is_unsigned(self, name: str) -> bool:
        """Whether Paddle quantizes ``name`` to u8.

        It does so behind a relu, and behind a relu6 that becomes part of a convolution. All else is
        s8 to it, though it may hold no negative values.
        """
        op = self.source(name)
        if op is None or op.type == "relu":
            return op is not None
        if op.type == "relu6":
            return self.is_convolution(op.input("X")[0])
        return op.type in KEEPING_SIGN and all(map(self.is_unsigned, self.activations_of(op)))

    def is_convolution(self, name: str) -> bool:
        """Whether ``name`` is what a convolution leaves, with what becomes part of it."""
        op = self.source(name)
        if op is None or any(len(self.readers[n]) > 1 for n in op.output_arg_names):
            return False
        if op.type in ("batch_norm", "elementwise_add"):
            return any(map(self.is_convolution, self.activations_of(op)))
        return op.type in CONVOLUTIONS

    def activations_of(self, op: Any) -> list[str]:
        """What an op reads, its parameters apart."""
        return [name for name in op.input_arg_names if not self.block.var(name).persistable]

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
        if op.type not in RELUS:
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
    op of its own the add runs in FP32 and is right. Returns the sums' names.
    """
    graph = Graph(program)
    apart = []
    for add in residual_adds(graph):
        output = add.output("Out")[0]
        unsigned = [graph.is_unsigned(name) for name in add.input_arg_names]
        if any(unsigned) and not all(unsigned) and not RELUS.issuperset(graph.readers[output]):
            keep_apart(graph, add)
            apart.append(output)
    return apart


def keep_apart(graph: Graph, add: Any) -> None:
    """Keep oneDNN from folding an add into a convolution; it never folds one that broadcasts."""
    one, two = (graph.block.var(name).shape for name in add.input_arg_names)
    if one == two and len(one) == PLANES:
        add._set_attr("axis", NOT_FOLDED_AXIS)


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
