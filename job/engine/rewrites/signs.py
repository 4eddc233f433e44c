"""Finds the values of a program that are never negative."""

from job.engine.inference.paddle_format import OpDesc
from job.engine.rewrites.network import DEQUANTIZE, QUANTIZE, Network, attribute, names

NEVER_NEGATIVE = frozenset(
    {"abs", "exp", "hard_sigmoid", "relu", "relu6", "sigmoid", "softmax", "square"}
)
# Ops whose output is never negative if their input, X or Input, is not.
KEEPING_SIGN = frozenset(
    {
        "assign",
        "bilinear_interp_v2",
        "concat",
        "dropout",
        "flatten2",
        "flatten_contiguous_range",
        "nearest_interp_v2",
        "pool2d",
        "reduce_max",
        "reduce_mean",
        "reshape2",
        "slice",
        "split",
        "squeeze2",
        "transpose2",
        "unsqueeze2",
        QUANTIZE,
        DEQUANTIZE,
    }
)
# The same for ops with two inputs, X and Y.
OF_TWO = frozenset({"elementwise_add", "elementwise_max", "elementwise_mul"})


def never_negative_values(network: Network) -> set[str]:
    """Return the names of the activations that are known to be at least zero."""
    found: set[str] = set()
    for op in network.ops:
        read = names(op.inputs, "X") + names(op.inputs, "Input")
        if op.type in OF_TWO:
            read += names(op.inputs, "Y")
        passes_on = op.type in KEEPING_SIGN or op.type in OF_TWO
        keeps = passes_on and bool(read) and all(name in found for name in read)
        if op.type in NEVER_NEGATIVE or clips_at_zero(op) or keeps:
            found.update(names(op.outputs))
    return found


def clips_at_zero(op: OpDesc) -> bool:
    """Return whether an op is a clip with a constant minimum of at least zero."""
    least = attribute(op, "min") if op.type == "clip" and not names(op.inputs, "Min") else None
    return least is not None and least.f >= 0
