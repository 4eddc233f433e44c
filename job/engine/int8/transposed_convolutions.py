"""Lets INT8 ops read the output of transposed convolutions.

oneDNN's transposed convolution can write blocks of 16 channels. Paddle's ``quantize`` op cannot
read this layout, so the model would fail. An op of Paddle's own kernels in between changes the
layout.
"""

from typing import Any

from paddle.static import Program

from job.engine.quantize.fake_quantize import QUANTIZE
from job.engine.quantize.graph import CONVOLUTIONS, Graph

TRANSPOSED = "conv2d_transpose"


def copy_blocked_outputs(program: Program) -> list[str]:
    """Insert a copy behind each transposed convolution whose output is quantized later.

    The copy is behind the bias and the batch norm, which Paddle fuses into the convolution, and
    before the activation, because Paddle quantizes the output of a relu to u8 only if it reads the
    relu directly.

    Returns:
        The names of the copied values.
    """
    block = program.global_block()
    copied = []
    for op in [op for op in block.ops if op.type == TRANSPOSED]:
        name = end_of(Graph(program), op)
        if not is_quantized_later(block, name):
            continue
        copy, variable = f"{name}@plain", block.var(name)
        readers = [each for each in block.ops if name in each.input_arg_names]
        block.create_var(name=copy, shape=variable.shape, dtype=variable.dtype)
        index = block.ops.index(Graph(program).producers[name]) + 1
        block._insert_op(index, type="assign", inputs={"X": [name]}, outputs={"Out": [copy]})
        for reader in readers:
            reader._rename_input(name, copy)
        copied.append(name)
    program._sync_with_cpp()
    return copied


def end_of(graph: Graph, op: Any) -> str:
    """Return the output of a transposed convolution with its bias and batch norm."""
    name = op.output("Output")[0]
    while True:
        readers = [each for each in graph.block.ops if name in each.input_arg_names]
        if len(readers) != 1 or readers[0].type not in ("elementwise_add", "batch_norm"):
            return name
        if readers[0].type == "elementwise_add":
            if not graph.block.var(readers[0].input("Y")[0]).persistable:
                return name
            (name,) = readers[0].output("Out")
        else:
            (name,) = readers[0].output("Y")


def is_quantized_later(block: Any, name: str) -> bool:
    """Return whether a quantize op reads a value, directly or through ops but convolutions."""
    reached = {name}
    for op in block.ops:
        if reached.isdisjoint(op.input_arg_names):
            continue
        if op.type == QUANTIZE:
            return True
        if op.type not in CONVOLUTIONS:
            reached |= set(op.output_arg_names)
    return False
