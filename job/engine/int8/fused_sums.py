"""Keeps sums apart from ops into which Paddle's passes would fuse them wrongly.

Two kinds of sums are wrong after the fusion:

- A sum with a product of two activations, such as the term for relative positions in attention.
  Paddle fuses the sum into the op ``fused_matmul``. In INT8, this op adds the stored steps of the
  other operand without its scale.
- A sum that repeats an operand, if a convolution or a fully connected layer computes this operand.
  Paddle fuses the sum into this layer, whose output is smaller than the sum.

No pass fuses across a copy of the operand. The layer or product then runs in INT8 and the sum in
FP32.
"""

from typing import Any

from paddle.static import Program

from job.engine.quantize.graph import CONVOLUTIONS, Graph, residual_adds

PRODUCTS = ("matmul", "matmul_v2")
LAYERS = {*CONVOLUTIONS, *PRODUCTS, "mul"}


def keep_wrong_sums_apart(program: Program) -> list[str]:
    """Make sums that Paddle's passes would fuse wrongly read a copy of an operand.

    Returns:
        The names of the sums.
    """
    graph = Graph(program)
    apart = []
    for add in list(residual_adds(graph)):
        for name in sorted(set(add.input_arg_names)):
            if of_two_activations(graph, graph.source(name)) or is_repeated(graph, add, name):
                read_copy(graph.block, add, name)
                apart.append(add.output("Out")[0])
    program._sync_with_cpp()
    return apart


def of_two_activations(graph: Graph, op: Any) -> bool:
    """Return whether an op is a matrix product without a weight."""
    if op is None or op.type not in PRODUCTS:
        return False
    return all(graph.source(name) is not None for name in op.input_arg_names)


def is_repeated(graph: Graph, add: Any, name: str) -> bool:
    """Return whether a sum repeats an operand that a layer computes."""
    (result,) = add.output("Out")
    if graph.block.var(name).shape == graph.block.var(result).shape:
        return False
    op = graph.source(name)
    while op is not None and op.type in ("batch_norm", "elementwise_add"):
        op = graph.source(op.input("X")[0])
    return op is not None and op.type in LAYERS


def read_copy(block: Any, op: Any, name: str) -> None:
    """Make an op read a copy of one of its inputs."""
    index = block.ops.index(op)
    copy, variable = f"{name}@copy{index}", block.var(name)
    block.create_var(name=copy, shape=variable.shape, dtype=variable.dtype)
    block._insert_op(index, type="assign", inputs={"X": [name]}, outputs={"Out": [copy]})
    op._rename_input(name, copy)
