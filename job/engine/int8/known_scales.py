"""Keeps residual sums apart from convolutions if Paddle's passes have no scale for the sum.

Paddle fuses a sum of two activations into the convolution before it. A convolution with a fused sum
runs in INT8 only if Paddle has a scale for the result. A value has a scale if a quantized op reads
it, or if an op that keeps the scale connects it with such a value.
"""

from typing import Any

from paddle.static import Program

from job.engine.int8.graph_fixes import keep_apart
from job.engine.quantize.fake_quantize import QUANTIZE
from job.engine.quantize.graph import Graph, residual_adds
from job.engine.training.bias_shapes import FUSED_ACTIVATIONS

# Op types -> slot of the input, for which Paddle's compute_propagate_scales_onednn_pass gives input
# and output one scale.
KEEPING_SCALE = {
    **dict.fromkeys(("transpose2", "reshape2", "pool2d", "split"), "X"),
    **dict.fromkeys(("nearest_interp", "nearest_interp_v2"), "X"),
    **dict.fromkeys(("slice", "shape"), "Input"),
}


def keep_sums_without_scale_apart(program: Program) -> list[str]:
    """Prevent the fusion of residual sums whose result has no scale.

    The convolution then runs in INT8 and the sum in FP32, instead of both in FP32.

    Returns:
        The names of the sums.
    """
    graph = Graph(program)
    known = values_with_scale(graph)
    apart = []
    for add in residual_adds(graph):
        if not known.issuperset(ends_of(graph, add)):
            keep_apart(graph, add)
            apart.append(add.output("Out")[0])
    return apart


def ends_of(graph: Graph, add: Any) -> set[str]:
    """Return the values of a fused sum that need a scale: the residual value and the result."""
    result = add.output("Out")[0]
    followers = [op for op in graph.block.ops if result in map(graph.plain, op.input_arg_names)]
    if [op.type in FUSED_ACTIVATIONS for op in followers] == [True]:
        result = followers[0].output("Out")[0]
    operands = [graph.plain(name) for name in add.input_arg_names]
    residuals = [name for name in operands if not graph.is_convolution(name)]
    # Paddle chooses the residual value itself if both operands are convolutions.
    return {result, *(residuals or operands)}


def values_with_scale(graph: Graph) -> set[str]:
    """Return the values for which Paddle's passes have a scale."""
    known = {op.input("X")[0] for op in graph.block.ops if op.type == QUANTIZE}
    before: set[str] = set()
    # Paddle repeats the step until the set of values without a scale stays the same.
    while (waiting := spread(graph, known)) and waiting != before:
        before = waiting
    return known


def spread(graph: Graph, known: set[str]) -> set[str]:
    """Add to ``known`` the values that get a scale from it; return the values without a scale."""
    waiting: set[str] = set()
    for op in graph.block.ops:
        if op.type in KEEPING_SCALE:
            ends = {graph.plain(op.input(KEEPING_SCALE[op.type])[0]), op.output("Out")[0]}
            (waiting if known.isdisjoint(ends) else known).update(ends)
        elif op.type == "concat" and op.output("Out")[0] in known:
            known.update(map(graph.plain, op.input("X")))
    return waiting
