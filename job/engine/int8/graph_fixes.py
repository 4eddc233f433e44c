"""Corrections of a fake-quantized program before Paddle's passes convert it to INT8."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.quantize.graph import KEEPING_SIGN, RELUS, Graph, residual_adds, signed_residuals
from job.engine.training.programs import write_variables

# The axis has no effect on operands of equal shape, but the fusion pass skips adds with this axis.
NOT_FOLDED_AXIS = 2
# Number of dimensions of a convolution's output.
PLANES = 4
UNSIGNED_MAX, SIGNED_MAX = 255.0, 127.0


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
    """Keep a pool in FP32 if its INT8 result would be wrong or too inexact.

    oneDNN cannot run some pools in INT8. Other results would be rounded too much. The result of a
    pool before a concatenation would be read with a wrong scale.

    Args:
        program: the fake-quantized program.
        widened: the sums of :func:`widen_signed_residuals`.

    Returns:
        Output of each such pool -> reason, for the report.
    """
    graph = Graph(program)
    concatenated = inputs_of_concatenations(graph)
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
        elif op.output("Out")[0] in concatenated:
            reason = (
                "Paddle gives the output the scale of a concatenation, but the input has another"
            )
        else:
            continue
        op._set_attr("skip_quant", 1)
        skipped[op.output("Out")[0]] = reason
    return skipped


def inputs_of_concatenations(graph: Graph) -> set[str]:
    """Return the values that a concatenation reads, directly or through ops that keep the scale.

    Paddle's passes give all inputs of a concatenation one scale. An INT8 pool writes its values
    with the scale of its input, so the concatenation would read them with a wrong scale.
    """
    waiting = [n for op in graph.block.ops if op.type == "concat" for n in op.input_arg_names]
    found: set[str] = set()
    while waiting:
        op = graph.source(waiting.pop())
        if op is None or not found.isdisjoint(op.output_arg_names):
            continue
        found |= set(op.output_arg_names)
        if op.type in (*KEEPING_SIGN, "concat"):
            waiting += graph.activations_of(op)
    return found


def is_global(op: Any, sides: Sequence[int]) -> bool:
    """Return whether a pool has one window, which is its whole input."""
    if op.attr("padding_algorithm") == "SAME" and not op.attr("global_pooling"):
        return False
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
        # Paddle's passes merge only floating-point ops.
        if steps is not None and block.var(op.input("X")[0]).dtype == paddle.float32:
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
