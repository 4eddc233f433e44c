"""Stores the weights of transposed matrix products in the layout [inputs, outputs].

``paddle.matmul(x, weight, transpose_y=True)`` reads a weight [outputs, inputs]. PaddleSlim and
Paddle's oneDNN passes support only [inputs, outputs], so such a product would stay in FP32.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from paddle.static import Program

# Type of a matrix product -> attribute that transposes its right operand.
TRANSPOSED = {"matmul": "transpose_Y", "matmul_v2": "trans_y"}
MATRIX_PRODUCTS = ("mul", *TRANSPOSED)
# Number of dimensions of a fully connected layer's weight.
MATRIX = 2


def transpose_weights(programs: Sequence[Program]) -> frozenset[str]:
    """Transpose the weights that all their readers transpose; the values are left to the caller.

    Args:
        programs: programs with the same weights; their shapes and products are changed.

    Returns:
        The names of the weights.
    """
    readers = [readers_of(program) for program in programs]
    names = {name for of_program in readers for name in of_program}
    found = {
        name
        for name in names
        if is_matrix(programs, name)
        and all(transposes(op, name) for of_program in readers for op in of_program[name])
    }
    for program, of_program in zip(programs, readers, strict=True):
        block = program.global_block()
        for name in found & of_program.keys():
            block.var(name).desc.set_shape(list(block.var(name).shape)[::-1])
            for op in of_program[name]:
                op._set_attr(TRANSPOSED[op.type], False)
        program._sync_with_cpp()
    return frozenset(found)


def readers_of(program: Program) -> dict[str, list[Any]]:
    """Return the ops that read each weight of a program."""
    block = program.global_block()
    readers: dict[str, list[Any]] = defaultdict(list)
    for op in (op for each in program.blocks for op in each.ops):
        for name in set(op.input_arg_names):
            if block.has_var(name) and block.var(name).persistable:
                readers[name].append(op)
    return readers


def is_matrix(programs: Sequence[Program], name: str) -> bool:
    """Return whether a variable has two dimensions."""
    blocks = [program.global_block() for program in programs]
    return any(block.has_var(name) and len(block.var(name).shape) == MATRIX for block in blocks)


def transposes(op: Any, name: str) -> bool:
    """Return whether an op is a matrix product whose right operand is ``name``, transposed."""
    return (
        op.type in TRANSPOSED
        and bool(op.attr(TRANSPOSED[op.type]))
        and op.input("Y") == [name]
        and op.input("X") != [name]
    )


def transpose_initial_values(startup: Program, names: frozenset[str]) -> None:
    """Make the program that initializes the weights transpose the weights in ``names``."""
    block = startup.global_block()
    for name in sorted(names):
        shape, dtype = list(block.var(name).shape), block.var(name).dtype
        source = f"{name}.transposed"
        for op in block.ops:
            op._rename_input(name, source)
            op._rename_output(name, source)
        block.create_var(name=source, shape=shape, dtype=dtype)
        block.create_var(name=f"{source}.xshape", shape=[0, *shape], dtype=dtype)
        block.var(name).desc.set_shape(shape[::-1])
        block.append_op(
            type="transpose2",
            inputs={"X": [source]},
            outputs={"Out": [name], "XShape": [f"{source}.xshape"]},
            attrs={"axis": [1, 0]},
        )
    startup._sync_with_cpp()
