"""Finds the heads of a detector, the convolutions that compute its outputs, by the graph.

Exported models have no name scopes, so a pattern of names cannot select the heads.
"""

from collections.abc import Sequence
from typing import Any

from paddle.static import Program

from job.engine.training.ready_names import SKIP
from job.errors import UsageError

# Ops between a head's convolution and its output.
_PASSED = ("elementwise_add", "reshape2", "transpose2", "scale", "assign", "sigmoid", "concat")


def keep_in_fp32(program: Program, outputs: Sequence[str]) -> None:
    """Exclude the head of each output from quantization.

    Raises:
        UsageError: an output has no head.
    """
    for op in heads_of(program, outputs):
        scope = op.attr("op_namescope") or "/"
        if SKIP not in scope:
            op._set_attr("op_namescope", f"{scope}{SKIP}/")


def heads_of(program: Program, outputs: Sequence[str]) -> list[Any]:
    """Return the convolutions that compute the outputs, and the adds of their biases.

    Raises:
        UsageError: an output has no head.
    """
    block = program.global_block()
    producers = {name: op for op in block.ops for name in op.output_arg_names}
    found = []
    for output in outputs:
        waiting, convolutions = [output], 0
        while waiting:
            op = producers.get(waiting.pop())
            if op is None or op in found:
                continue
            if op.type == "conv2d":
                convolutions += 1
                found.append(op)
            elif op.type in _PASSED:
                found.append(op)
                waiting += [n for n in op.input_arg_names if not block.var(n).persistable]
        if not convolutions:
            raise UsageError(
                f"/model: no convolution computes the detector's output {output}, so its head "
                "cannot stay in FP32",
                "Give a detector each of whose outputs is computed by a convolution.",
            )
    return found
