"""Finds the heads of a detector in its INT8 model."""

from pathlib import Path

from job.engine.inference.detector_heads import CONVOLUTIONS, heads_of
from job.engine.inference.model_graph import graph_of_program
from job.engine.inference.paddle_format import read_program


def head_outputs(fake_quantized: Path, int8: Path) -> set[str]:
    """Return the names of the outputs of a detector's heads, as the audit names them.

    Args:
        fake_quantized: prefix of the fake-quantized model, whose ops are not fused.
        int8: prefix of the INT8 model of the same network.
    """
    graph, deployed = (
        graph_of_program(read_program(Path(f"{prefix}.pdmodel")))
        for prefix in (fake_quantized, int8)
    )
    heads = {
        op.inputs["Filter"][0] for op in heads_of(graph, graph.outputs) if op.type in CONVOLUTIONS
    }
    found = (op for op in deployed.ops if op.type in CONVOLUTIONS)
    return {op.writes[0] for op in found if op.inputs["Filter"][0] in heads}
