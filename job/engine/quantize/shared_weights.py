"""Separates the ops that are not quantized from the weights that they share with quantized ops."""

from typing import Any

from paddle.static import Program

from job.engine.training.programs import SKIP


def read_copies(program: Program) -> int:
    """Make ops that are excluded from quantization read copies of their weights.

    PaddleSlim's post-training quantization chooses the axis of a weight's scales by the last op
    that reads the weight. If this op transposes the weight and is excluded, the axis is wrong.

    Args:
        program: FP32 program in which the excluded ops are marked.

    Returns:
        The number of copies.
    """
    block = program.global_block()
    read = {name for op in block.ops if not is_excluded(op) for name in op.input_arg_names}
    copies: dict[str, str] = {}
    for op in list(block.ops):
        for name in op.input_arg_names if is_excluded(op) else ():
            variable = block.var(name)
            if not variable.persistable or name not in read:
                continue
            if name not in copies:
                copies[name] = f"{name}.shared"
                block.create_var(name=copies[name], shape=variable.shape, dtype=variable.dtype)
            op._rename_input(name, copies[name])
    for name, copy in copies.items():
        block._insert_op(0, type="assign", inputs={"X": [name]}, outputs={"Out": [copy]})
    program._sync_with_cpp()
    return len(copies)


def is_excluded(op: Any) -> bool:
    """Return whether an op is marked so that it is not quantized."""
    return op.has_attr("op_namescope") and SKIP in op.attr("op_namescope")
