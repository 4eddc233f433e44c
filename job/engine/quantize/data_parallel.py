"""Data-parallel quantization-aware training.

Gradients and the loss are averaged over the processes, and quantizers use the maximum over the
processes. Therefore weights, scales and losses are equal in all processes. They are the weights,
scales and losses of a single process that trains on the whole batch, except for rounding.
"""

from typing import Any

from paddle.distributed import ReduceOp
from paddle.static import Program

from job.engine.quantize import fake_quantize
from job.engine.training.collective import RING

SUM, MAX = int(ReduceOp.SUM), int(ReduceOp.MAX)
# Bits of the op_role attribute.
BACKWARD, OPTIMIZE = 1, 2
GRADIENT = "@GRAD"


def share_training(program: Program, loss: str, size: int) -> str:
    """Make a quantized training program use the batches of all processes.

    Args:
        program: with backward pass, optimizer and quantize ops, changed by
            :func:`job.engine.quantize.fake_quantize.measure_apart`.
        loss: name of the loss, the mean over the images of one process.
        size: number of processes.

    Returns:
        The name of the mean loss over the images of all processes.
    """
    share_scales(program)
    share_gradients(program, size)
    block = program.global_block()
    mean = f"{loss}.shared"
    block.create_var(name=mean, shape=block.var(loss).shape, dtype="float32")
    block.append_op(type="assign", inputs={"X": [loss]}, outputs={"Out": [mean]})
    average(block, len(block.ops), mean, size, role=0)
    program._sync_with_cpp()
    return mean


def share_gradients(program: Program, size: int) -> None:
    """Average the gradient of every weight over the processes, before the first optimizer op."""
    block = program.global_block()
    updates = [i for i, op in enumerate(block.ops) if int(op.attr("op_role")) & OPTIMIZE]
    weights = {
        name
        for i in updates
        if "Param" in block.ops[i].input_names
        for name in block.ops[i].input("Param")
    }
    for name in sorted(weights):
        average(block, updates[0], f"{name}{GRADIENT}", size, role=BACKWARD)
    program._sync_with_cpp()


def average(block: Any, index: int, name: str, size: int, *, role: int) -> None:
    """Insert ops at ``index`` that replace a variable by its mean over the processes."""
    block._insert_op(
        index,
        type="scale",
        inputs={"X": [name]},
        outputs={"Out": [name]},
        attrs={"scale": 1.0 / size, "bias": 0.0, "bias_after_scale": True, "op_role": role},
    )
    all_reduce(block, index, name, SUM, role=role)


def all_reduce(block: Any, index: int, name: str, how: int, *, role: int = 0) -> None:
    """Insert an op at ``index`` that reduces a variable over the processes in place."""
    block._insert_op(
        index,
        type="all_reduce",
        inputs={"x": [name]},
        outputs={"out": [name]},
        attrs={"ring_id": RING, "reduce_type": how, "op_role": role},
    )


def share_scales(program: Program) -> int:
    """Update each moving average with the maximum over the images of all processes.

    The op reduces only the sum of the moving average, because the sum increases with the measured
    value.

    Args:
        program: changed by :func:`job.engine.quantize.fake_quantize.measure_apart`.

    Returns:
        The number of shared scales.
    """
    block = program.global_block()
    observers = [i for i, op in enumerate(block.ops) if op.type == fake_quantize.OBSERVER]
    for index in reversed(observers):
        (total,) = block.ops[index].input("InAccum")
        all_reduce(block, index + 1, total, MAX)
    program._sync_with_cpp()
    return len(observers)
