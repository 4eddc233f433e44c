"""Gives biases and factors of channels shapes that Paddle's oneDNN passes read correctly."""

from paddle.base.framework import Block
from paddle.static import Program

from job.engine.training.ready_names import APPENDED

# Number of dimensions of images, and of a two-dimensional convolution's output.
PLANES = 4
# Op types into which Paddle fuses a bias.
WITH_BIAS = ("conv2d", "depthwise_conv2d", "conv2d_transpose")
ELEMENTWISE = ("elementwise_add", "elementwise_sub", "elementwise_mul")
# Activations that Paddle fuses into the convolution or the elementwise op before them.
FUSED_ACTIVATIONS = (
    *("abs", "clip", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "mish"),
    *("relu", "relu6", "sigmoid", "sqrt", "swish", "tanh"),
)


def fold_bias_shapes(program: Program) -> int:
    """Make each convolution's bias a one-dimensional operand, as the fusion passes expect.

    ``nn.Conv2D`` with a bias builds conv2d, reshape2(bias), elementwise_add(axis=-1). No pass fuses
    this sequence, so bias and activation would run as separate ops, in FP32 and in INT8.

    Returns:
        The number of adds that were changed.
    """
    block = program.global_block()
    # The shape is [1, channels, 1, 1], or [1, 1, 1, channels] of networks in NHWC. The passes lose
    # the axis of a bias with five dimensions, of a three-dimensional convolution.
    reshaped = {
        op.output("Out")[0]: op
        for op in block.ops
        if op.type == "reshape2"
        and block.var(op.input("X")[0]).persistable
        and len(op.attr("shape")) == PLANES
    }
    # Paddle fuses other adds with a relu behind them into an op that loses the axis.
    fused = outputs_with_bias(block)
    changed = 0
    for op in block.ops:
        if op.type != "elementwise_add" or op.input("X")[0] not in fused:
            continue
        if op.input("Y")[0] in reshaped and op.attr("axis") == -1:
            (bias,) = reshaped[op.input("Y")[0]].input("X")
            sizes = [size != 1 for size in reshaped[op.input("Y")[0]].attr("shape")]
            if len(block.var(bias).shape) == 1 and any(sizes):
                op._rename_input(op.input("Y")[0], bias)
                op._set_attr("axis", sizes.index(True))
                changed += 1
    used = {name for op in block.ops for name in op.input_arg_names}
    unused = reshaped.keys() - used
    for index in reversed(range(len(block.ops))):
        op = block.ops[index]
        if op.type == "reshape2" and op.output("Out")[0] in unused:
            block._remove_op(index, sync=False)
    program._sync_with_cpp()
    return changed


def outputs_with_bias(block: Block) -> set[str]:
    """Return the outputs of the ops into which Paddle fuses a bias."""
    return {op.output("Output")[0] for op in block.ops if op.type in WITH_BIAS}


def write_out_axes(program: Program) -> int:
    """Give the second operand of elementwise ops its missing last dimensions, instead of an axis.

    Paddle fuses an elementwise op and the activation behind it into an op that loses the axis.
    ``DeformConv2D`` adds its bias with an axis, and exports of old Paddle versions multiply with
    the gates of channels in this way.

    Returns:
        The number of ops that were changed.
    """
    block = program.global_block()
    activated = {
        name for op in block.ops if op.type in FUSED_ACTIVATIONS for name in op.input_arg_names
    }
    fused = outputs_with_bias(block)
    changed = 0
    for op in list(block.ops):
        if op.type not in ELEMENTWISE or op.output("Out")[0] not in activated:
            continue
        (left,), (right,), axis = op.input("X"), op.input("Y"), op.attr("axis")
        known = len(block.var(right).shape)
        missing = len(block.var(left).shape) - axis - known
        if axis == -1 or missing <= 0 or left in fused:
            continue
        operand, shape = (
            block.create_var(name=f"{APPENDED}axes_{changed}{end}", dtype=block.var(right).dtype)
            for end in ("", ".shape")
        )
        block._insert_op(
            block.ops.index(op),
            type="unsqueeze2",
            inputs={"X": [right]},
            outputs={"Out": [operand], "XShape": [shape]},
            attrs={"axes": list(range(known, known + missing))},
        )
        op._rename_input(right, operand.name)
        op._set_attr("axis", -1)
        changed += 1
    program._sync_with_cpp()
    return changed
