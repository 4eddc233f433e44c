"""Finds the heads of a detector, the convolutions that compute its outputs, by the graph.

Exported models have no name scopes, so a pattern of names cannot select the heads. The module does
not import Paddle, so that planning can reject a model.
"""

from collections.abc import Sequence

from job.engine.inference.model_graph import GraphOp, ModelGraph
from job.errors import UsageError

CONVOLUTIONS = ("conv2d", "fused_conv2d")
# Ops between a head's convolution and its output.
_PASSED = ("elementwise_add", "reshape2", "transpose2", "scale", "assign", "sigmoid", "concat")


def heads_of(graph: ModelGraph, outputs: Sequence[str]) -> list[GraphOp]:
    """Return the convolutions that compute the outputs, and the adds of their biases.

    Raises:
        UsageError: an output has no head.
    """
    found: dict[int, GraphOp] = {}
    for output in outputs:
        waiting, convolutions = [output], 0
        while waiting:
            op = graph.producers.get(waiting.pop())
            if op is None:
                continue
            if op.index in found:
                # Another output has the same head.
                convolutions += 1
            elif op.type in CONVOLUTIONS:
                convolutions += 1
                found[op.index] = op
            elif op.type in _PASSED:
                found[op.index] = op
                waiting += [name for name in op.reads if name not in graph.weights]
        if not convolutions:
            raise UsageError(
                f"/model: no convolution computes the detector's output {output}, so its head "
                "cannot stay in FP32",
                "Give a detector in which a convolution computes each output.",
            )
    return list(found.values())
