"""Keeps the sum with a product of two activations apart from the product.

Paddle fuses such a sum into the op ``fused_matmul``, for example the term for relative positions in
attention. In INT8, this op adds the stored steps of the other operand without its scale. Therefore
its result is wrong.
"""

from typing import Any

from paddle.static import Program

from job.engine.quantize.graph import Graph, residual_adds

PRODUCTS = ("matmul", "matmul_v2")


def keep_product_sums_apart(program: Program) -> list[str]:
    """Make each sum with a product of two activations read a copy of the product.

    The passes do not fuse across the copy. The product then runs in INT8 and the sum in FP32.

    Returns:
        The names of the sums.
    """
    graph = Graph(program)
    apart = []
    for add in list(residual_adds(graph)):
        for name in sorted(set(add.input_arg_names)):
            if of_two_activations(graph, graph.source(name)):
                read_copy(graph.block, add, name)
                apart.append(add.output("Out")[0])
    program._sync_with_cpp()
    return apart


def of_two_activations(graph: Graph, op: Any) -> bool:
    """Return whether an op is a matrix product without a weight."""
    if op is None or op.type not in PRODUCTS:
        return False
    return all(graph.source(name) is not None for name in op.input_arg_names)


def read_copy(block: Any, op: Any, name: str) -> None:
    """Make an op read a copy of one of its inputs."""
    copy = f"{name}@copy{block.ops.index(op)}"
    variable = block.var(name)
    block.create_var(name=copy, shape=variable.shape, dtype=variable.dtype)
    index = block.ops.index(op)
    block._insert_op(index, type="assign", inputs={"X": [name]}, outputs={"Out": [copy]})
    op._rename_input(name, copy)
