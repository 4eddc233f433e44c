"""Rejects programs that cannot be trained or quantized."""

import numpy as np
import paddle
from paddle.static import Program, Scope

from job.engine.training.programs import Classifier, persistables, read_variables
from job.engine.training.tracing import place_of
from job.errors import UsageError
from job.text_format import plural

# Attribute of ops that run the ops of another block.
SUB_BLOCK = "sub_block"
# Largest number of names in a message.
NAMED = 5
CHANNELS_LAST = ("NHWC", "NLC", "NDHWC")


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


def require_channels_first(program: Program) -> None:
    """Check that no layer stores the channels last.

    Paddle's oneDNN passes ignore such a layout, and the INT8 model would fail or be wrong.

    Raises:
        UsageError: a layer stores the channels last.
    """
    for op in program.global_block().ops:
        for name in ("data_format", "data_layout"):
            if op.has_attr(name) and op.attr(name) in CHANNELS_LAST:
                raise UsageError(
                    f"/model: the network's op {op.type} "
                    f"({place_of(op) or ', '.join(op.output_arg_names[:1])}) has the data format "
                    f"{op.attr(name)}, expected channels first",
                    "Build the network with data_format='NCHW' (NCL and NCDHW for other ranks).",
                )


def require_weights(program: Program) -> None:
    """Check that the outputs depend on weights, because there is nothing to quantize otherwise.

    Raises:
        UsageError: the program has no weights.
    """
    if not persistables(program):
        raise UsageError(
            "/model: the network's outputs depend on no weights",
            "Return scores that convolutions or fully connected layers compute from the images.",
        )


def require_trainable(classifier: Classifier) -> None:
    """Check that a training computes what the network's code computes at each call.

    The training program is built by one call. Python code that draws random numbers would decide
    once for all steps.

    Raises:
        UsageError: the call drew random numbers outside Paddle, or the training program does not
            use a weight that evaluation uses.
    """
    if classifier.generators:
        raise UsageError(
            f"/model/callable: the network draws random numbers with {classifier.generators[0]} in "
            "its forward pass, but training runs this code only once",
            "Draw them with Paddle, for example with paddle.rand([x.shape[0], 1, 1, 1]), and "
            "multiply with the result instead of using if.",
        )
    used = {name for op in classifier.train.global_block().ops for name in op.input_arg_names}
    parameters = [each for each in classifier.evaluation.all_parameters() if each.trainable]
    unused = [each.name for each in parameters if each.name not in used]
    if unused:
        raise UsageError(
            f"/model/callable: training does not use {plural(len(unused), 'weight')} that "
            f"evaluation uses: {', '.join(unused[:NAMED])}",
            "Use each layer in training, too, or set its weights with trainable=False.",
        )


def require_numbers(program: Program, scope: Scope) -> None:
    """Check that no weight is NaN.

    Otherwise the error of the training would name the settings of the training as the cause.

    Infinite values are allowed: masks of attention contain them.

    Raises:
        UsageError: a weight or a statistic contains NaN.
    """
    values = read_variables(scope, persistables(program))
    names = [name for name, value in values.items() if np.isnan(value).any()]
    if names:
        raise UsageError(
            f"/model: weights of the network contain NaN: {', '.join(names[:NAMED])}",
            "Correct the initializer of these weights, or the file that contains them.",
        )
