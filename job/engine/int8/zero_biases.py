"""Gives matrix products without a bias a bias of zeros.

Paddle's oneDNN passes have no INT8 kernel for a matrix product with a weight. They replace a
product and the add of a bias by the op ``fc``, which runs in INT8.
"""

from typing import Any

import numpy as np
from paddle import static
from paddle.static import Program

from job.engine.quantize.fake_quantize import DEQUANTIZE
from job.engine.quantize.graph import Graph
from job.engine.training.programs import write_variables

# Type of a matrix product -> attributes that must be false.
TRANSPOSING = {
    "mul": (),
    "matmul": ("transpose_X", "transpose_Y"),
    "matmul_v2": ("trans_x", "trans_y"),
}
# Number of dimensions of a fully connected layer's weight.
MATRIX = 2


def add_zero_biases(program: Program, scope: static.Scope) -> list[str]:
    """Add zeros to the result of each quantized matrix product without a bias.

    Returns:
        The names of the results.
    """
    graph = Graph(program)
    products = [op for op in graph.block.ops if is_layer(graph, op) and not has_bias(graph, op)]
    for op in products:
        result = op.output("Out")[0]
        product, bias = f"{result}@product", f"{result}@zeros"
        variable, outputs = graph.block.var(result), graph.block.var(op.input("Y")[0]).shape[1]
        graph.block.create_var(name=product, shape=variable.shape, dtype=variable.dtype)
        graph.block.create_var(name=bias, shape=[outputs], dtype="float32", persistable=True)
        write_variables(scope, {bias: np.zeros(outputs, "float32")})
        op._rename_output(result, product)
        graph.block._insert_op(
            graph.block.ops.index(op) + 1,
            type="elementwise_add",
            inputs={"X": [product], "Y": [bias]},
            outputs={"Out": [result]},
            attrs={"axis": len(variable.shape) - 1},
        )
    program._sync_with_cpp()
    return [op.output("Out")[0] for op in products]


def is_layer(graph: Graph, op: Any) -> bool:
    """Return whether an op is a product with a quantized weight that may run in INT8."""
    if op.type not in TRANSPOSING or op.has_attr("skip_quant"):
        return False
    restoring = graph.producers.get(op.input("Y")[0])
    return (
        not any(op.attr(name) for name in TRANSPOSING[op.type])
        and restoring is not None
        and restoring.type == DEQUANTIZE
        and graph.block.var(restoring.input("X")[0]).persistable
        and len(graph.block.var(restoring.input("X")[0]).shape) == MATRIX
    )


def has_bias(graph: Graph, op: Any) -> bool:
    """Return whether one op reads the product, and adds a weight with one value per output."""
    (result,), outputs = op.output("Out"), graph.block.var(op.input("Y")[0]).shape[1]
    readers = [reader for reader in graph.block.ops if result in reader.input_arg_names]
    if [reader.type for reader in readers] != ["elementwise_add"]:
        return False
    bias = graph.block.var(readers[0].input("Y")[0])
    return bias.persistable and tuple(bias.shape) in ((outputs,), (1, outputs))
