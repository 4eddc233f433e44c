"""Corrections of a fake-quantized program before Paddle's passes convert it to INT8."""

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
# The axis has no effect on operands of equal shape, but the fusion pass skips adds with this axis.
NOT_FOLDED_AXIS = 2
# Number of dimensions of a convolution's output.
PLANES = 4
UNSIGNED_MAX, SIGNED_MAX = 255.0, 127.0


class Graph:
    """Producers and readers of a program's variables, across quantize and dequantize ops.

    Args:
        program: the program.

    Attributes:
        block: the program's block.
        producers: variable -> op that writes it.
        readers: variable -> types of the ops that read it, including quantize and dequantize ops.
    """

    def __init__(self, program: Program) -> None:
        self.block = program.global_block()
        self.producers = {n: op for op in self.block.ops for n in op.output_arg_names}
        self.readers: dict[str, list[str]] = defaultdict(list)
        for op in self.block.ops:
            for name in op.input_arg_names:
                self.readers[name].append(op.type)

    def source(self, name: str):
        """Return the op that computes ``name``; None for inputs and weights."""
        op = self.producers.get(name)
        while op is not None and op.type in (QUANTIZE, DEQUANTIZE):
            op = self.producers.get(op.input("X")[0])
        return op

    def is_unsigned(self, name: str) -> bool:
        """Return whether Paddle quantizes ``name`` to u8.

        Paddle quantizes the output of a relu to u8, and the output of a relu6 that is fused into a
        convolution. It quantizes all other values to s8, even if they are never negative.
        """
        op = self.source(name)
        if op is None or op.type == "relu":
            return op is not None
        if op.type == "relu6":
            return self.is_convolution(op.input("X")[0])
        return op.type in KEEPING_SIGN and all(map(self.is_unsigned, self.activations_of(op)))

    def is_convolution(self, name: str) -> bool:
        """Return whether ``name`` is the output of a convolution with its fused ops."""
        op = self.source(name)
        if op is None or any(len(self.readers[n]) > 1 for n in op.output_arg_names):
            return False
        if op.type in ("batch_norm", "elementwise_add"):
            return any(map(self.is_convolution, self.activations_of(op)))
        return op.type in CONVOLUTIONS

    def activations_of(self, op: Any) -> list[str]:
        """Return the inputs of an op that are not parameters."""
        return [name for name in op.input_arg_names if not self.block.var(name).persistable]

    def scale_of(self, name: str) -> str | None:
        """Return the scale variable of the quantize op that reads ``name``; None without one."""
        for op in self.block.ops:
            if op.type == QUANTIZE and op.input("X")[0] == name:
                return op.input("Scale")[0]
        return None


def residual_adds(graph: Graph) -> Iterator[Any]:
    """Yield the adds of two activations; adds of a bias are excluded."""
    for op in graph.block.ops:
        of_weight = any(graph.block.var(name).persistable for name in op.input_arg_names)
        if op.type == "elementwise_add" and not of_weight:
            yield op


def signed_residuals(program: Program) -> Iterator[tuple[str, str]]:
    """Yield (output, scale variable) of each relu(add(a, b)) with both a and b signed.

    oneDNN's convolution with a fused add writes its output in the data type of the residual. For
    the output of a relu, Paddle computes the scale for u8 with 255 steps. If the residual is
    signed, the output is written as s8 with at most 127 steps. Without a correction, values above
    half the range are clipped.
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
    """Prevent the fusion of adds of an unsigned residual whose sum can be negative.

    The convolution would write the sum in the residual's data type, u8, and clip it at zero. As a
    separate op, the add runs in FP32 and is correct.

    Returns:
        The names of the sums.
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
    """Prevent the fusion of an add into a convolution.

    Adds that broadcast need no change, because the pass never fuses them.
    """
    one, two = (graph.block.var(name).shape for name in add.input_arg_names)
    if one == two and len(one) == PLANES:
        add._set_attr("axis", NOT_FOLDED_AXIS)


def widen_signed_residuals(program: Program, scope: static.Scope) -> list[str]:
    """Widen the scales of :func:`signed_residuals` so that the range of a sum has 127 steps.

    Returns:
        The names of the outputs.
    """
    changed = []
    for output, scale in signed_residuals(program):
        value = np.array(scope.find_var(scale).get_tensor())
        widened = value * np.float32(UNSIGNED_MAX / SIGNED_MAX)
        write_variables(scope, {scale: widened})
        changed.append(output)
    return changed


def skip_pools(program: Program, widened: Sequence[str]) -> dict[str, str]:
    """Keep a pool in FP32 if oneDNN cannot run it in INT8 or would round its result too much.

    Args:
        program: the fake-quantized program.
        widened: the sums of :func:`widen_signed_residuals`.

    Returns:
        Output of each such pool -> reason, for the report.
    """
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
            reason = "a global mean in INT8 would be rounded to the scale of the largest value"
        elif op.attr("adaptive") and has_uneven_windows(sides, op.attr("ksize")):
            reason = "it is adaptive with windows of different sizes, which oneDNN does not support"
        else:
            continue
        op._set_attr("skip_quant", 1)
        skipped[op.output("Out")[0]] = reason
    return skipped


def is_global(op: Any, sides: Sequence[int]) -> bool:
    """Return whether a pool's window is its whole input."""
    whole = [1, 1] if op.attr("adaptive") else list(sides)
    return op.attr("global_pooling") or list(op.attr("ksize")) == whole


def has_uneven_windows(sides: Sequence[int], outputs: Sequence[int]) -> bool:
    """Return whether an adaptive pool's windows have different sizes."""
    return any(side % output != 0 for side, output in zip(sides, outputs, strict=True))


def write_factors_as_constants(program: Program, scope: static.Scope) -> int:
    """Replace ops that multiply by a number by ops that read the number from a variable.

    Paddle's squash passes merge ``scale``, and ``dropout`` that scales its output, with the
    adjacent quantize and dequantize ops. The INT8 graph then lacks the factor. The passes do not
    change ``elementwise_mul`` and ``elementwise_add`` with a constant.

    Returns:
        The number of replaced ops.
    """
    block = program.global_block()
    replaced = 0
    for op in list(block.ops):
        steps = constant_steps(op)
        if steps is not None:
            replace_by_constants(block, op, steps, scope)
            replaced += 1
    program._sync_with_cpp()
    return replaced


def constant_steps(op: Any) -> list[tuple[str, float]] | None:
    """Return the op types and numbers that compute the same as an op; None for other ops."""
    if op.type == "dropout" and op.attr("dropout_implementation") == "downgrade_in_infer":
        return [("elementwise_mul", 1.0 - op.attr("dropout_prob"))]
    if op.type != "scale" or op.input("ScaleTensor"):
        return None
    factor, bias = op.attr("scale"), op.attr("bias")
    if not op.attr("bias_after_scale"):
        bias *= factor
    return [("elementwise_mul", factor), *([("elementwise_add", bias)] if bias else [])]


def replace_by_constants(
    block: Any, op: Any, steps: Sequence[tuple[str, float]], scope: static.Scope
) -> None:
    """Replace an op by steps that each read one constant."""
    value, output = op.input("X")[0], op.output("Out")[0]
    index = block.ops.index(op)
    block._remove_op(index)
    for number, (kind, constant) in enumerate(steps):
        name = f"{output}@constant{number}"
        block.create_var(name=name, shape=[1], dtype="float32", persistable=True)
        write_variables(scope, {name: np.array([constant], "float32")})
        result = output if number == len(steps) - 1 else f"{output}@step{number}"
        if result != output:
            block.create_var(name=result, shape=block.var(output).shape, dtype="float32")
        inputs, attributes = {"X": [value], "Y": [name]}, {"axis": -1}
        block._insert_op(
            index + number, type=kind, inputs=inputs, outputs={"Out": [result]}, attrs=attributes
        )
        value = result
