"""A training program that computes as if its batch were that of all processes.

Gradients and the loss are averaged, and the quantizers take in the largest value of all: weights,
scales and losses are then the same in every process, and those of one with the whole batch.
"""

from typing import Any

from paddle.distributed import ReduceOp
from paddle.static import Program

from job.engine.quantize import fake_quantize
from job.engine.training.collective import RING

SUM, MAX = int(ReduceOp.SUM), int(ReduceOp.MAX)
# Bits of the attribute op_role.
BACKWARD, OPTIMIZE = 1, 2
GRADIENT = "@GRAD"


def share_training(program: Program, loss: str, size: int) -> str:
    """Make a quantized training program compute as if its batch were that of all processes.

    Args:
        program: with backward pass, optimizer and quantize ops; measures apart from quantizing,
            see :func:`job.engine.quantize.fake_quantize.measure_apart`.
        loss: its loss, the mean over the images of a process.
        size: how many processes there are.

    Returns:
        The name of the loss over the images of all of them.
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
    """Average the gradient of every weight over the processes, before any optimizer op."""
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
    """Insert ops that replace a variable by its mean over the processes."""
    block._insert_op(
        index,
        type="scale",
        inputs={"X": [name]},
        outputs={"Out": [name]},
        attrs={"scale": 1.0 / size, "bias": 0.0, "bias_after_scale": True, "op_role": role},
    )
    all_reduce(block, index, name, SUM, role=role)


def all_reduce(block: Any, index: int, name: str, how: int, *, role: int = 0) -> None:
    """Insert the op that reduces a variable over the processes, in place."""
    block._insert_op(
        index,
        type="all_reduce",
        inputs={"x": [name]},
        outputs={"out": [name]},
        attrs={"ring_id": RING, "reduce_type": how, "op_role": role},
    )


def share_scales(program: Program) -> int:
    """Let moving averages take in the largest value of all processes' images.

    The sum behind an average is reduced: it grows with what it takes in.

    Args:
        program: measures apart from quantizing, see :func:`quantization.measure_apart`.

    Returns:
        The number of scales that are shared.
    """
    block = program.global_block()
    observers = [i for i, op in enumerate(block.ops) if op.type == fake_quantize.OBSERVER]
    for index in reversed(observers):
        (total,) = block.ops[index].input("InAccum")
        all_reduce(block, index + 1, total, MAX)
    program._sync_with_cpp()
    return len(observers)
