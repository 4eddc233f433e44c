"""Replaces the activation rrelu, whose slope is random in training, by what evaluation computes."""

from paddle.static import Program

RANDOM, FIXED = "rrelu", "leaky_relu"


def use_mean_slopes(evaluation: Program) -> int:
    """Replace ``rrelu`` in an evaluation program by ``leaky_relu`` with the mean slope.

    Both compute the same in evaluation. But Paddle cannot run a saved ``rrelu``: the export removes
    the output for the random slopes, and the kernel needs this output. Besides, oneDNN fuses
    ``leaky_relu`` into convolutions.

    Returns:
        The number of replaced ops.
    """
    block = evaluation.global_block()
    replaced = 0
    for index, op in enumerate(list(block.ops)):
        if op.type != RANDOM:
            continue
        inputs, outputs = {"X": op.input("X")}, {"Out": op.output("Out")}
        slope = (op.attr("lower") + op.attr("upper")) / 2
        noise = op.output("Noise") if "Noise" in op.output_names else []
        block._remove_op(index, sync=False)
        block._insert_op(index, type=FIXED, inputs=inputs, outputs=outputs, attrs={"alpha": slope})
        for name in noise:
            block._remove_var(name, sync=False)
        replaced += 1
    evaluation._sync_with_cpp()
    return replaced
