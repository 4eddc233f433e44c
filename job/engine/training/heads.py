"""Keeps the heads of a detector in FP32."""

from collections.abc import Sequence

from paddle.static import Program

from job.engine.inference.detector_heads import heads_of
from job.engine.inference.model_graph import ModelGraph, graph_of_program
from job.engine.inference.paddle_format import ProgramDesc
from job.engine.training.ready_names import SKIP


def keep_in_fp32(program: Program, outputs: Sequence[str]) -> None:
    """Exclude the head of each output from quantization.

    Raises:
        UsageError: an output has no head.
    """
    ops = program.global_block().ops
    for head in heads_of(graph_of(program, outputs=outputs), outputs):
        op = ops[head.index]
        scope = op.attr("op_namescope") or "/"
        if SKIP not in scope:
            op._set_attr("op_namescope", f"{scope}{SKIP}/")


def graph_of(
    program: Program, inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> ModelGraph:
    """Return the graph of a static program without feed and fetch ops."""
    message = ProgramDesc.FromString(program.desc.serialize_to_string())
    return graph_of_program(message, inputs, outputs)
