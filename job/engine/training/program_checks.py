"""Rejects programs that cannot be trained or quantized."""

import paddle
from paddle.static import Program

from job.engine.training.programs import Classifier
from job.engine.training.tracing import place_of
from job.errors import UsageError

# Attribute of ops that run the ops of another block.
SUB_BLOCK = "sub_block"


def require_one_block(program: Program) -> None:
    """Check that a program has no loops and no branches.

    Quantization and Paddle's oneDNN passes read the ops of the first block only.

    Raises:
        UsageError: an op contains a block, such as ``while`` or ``conditional_block``.
    """
    for op in program.global_block().ops:
        if not op.has_attr(SUB_BLOCK):
            continue
        raise UsageError(
            f"/model: the network contains control flow: the op {op.type} "
            f"({place_of(op) or ', '.join(op.output_arg_names[:1])}) runs other ops",
            "Write loops in Python with a fixed number of steps. Compute both branches and select "
            "one with paddle.where.",
        )


def require_float_outputs(classifier: Classifier) -> None:
    """Check that the outputs are floating-point numbers that Paddle's CPU kernels support.

    Raises:
        UsageError: an output has another data type.
    """
    block = classifier.evaluation.global_block()
    for name in classifier.outputs:
        if block.var(name).dtype not in (paddle.float32, paddle.float64):
            raise UsageError(
                f"/model: the network's output {name} has the data type {block.var(name).dtype}, "
                "expected float32",
                "Return the scores themselves, as float32: neither their argmax nor a cast.",
            )
