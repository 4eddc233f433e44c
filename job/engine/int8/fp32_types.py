"""Op types that stay in FP32 in every INT8 model, with the reason."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from job.engine.inference.paddle_format import is_int8

_TRANSPOSED = "Paddle's oneDNN passes do not quantize transposed convolutions"
_INTERPOLATION = (
    "interpolation takes little time, and conversions to and from INT8 would take the time that "
    "INT8 saves"
)
_RECURRENT = "Paddle's oneDNN passes do not quantize this recurrent layer"
REASONS = {
    "conv2d_transpose": _TRANSPOSED,
    # A pass folds the bias into the op.
    "conv2d_transpose_bias": _TRANSPOSED,
    "depthwise_conv2d_transpose": _TRANSPOSED,
    "nearest_interp": _INTERPOLATION,
    "nearest_interp_v2": _INTERPOLATION,
    "bilinear_interp": _INTERPOLATION,
    "bilinear_interp_v2": _INTERPOLATION,
    "bicubic_interp_v2": _INTERPOLATION,
    "concat": "concatenation only copies, and INT8 was not faster",
    "rnn": _RECURRENT,
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
}


def types_in_fp32(ops: Sequence[Any]) -> list[dict[str, Any]]:
    """Return ``type``, ``count`` and ``reason`` for each type of ``REASONS`` among the FP32 ops.

    Args:
        ops: ops of the INT8 model.
    """
    counts = Counter(op.type for op in ops if op.type in REASONS and not is_int8(op))
    return [
        {"type": name, "count": count, "reason": REASONS[name]}
        for name, count in sorted(counts.items())
    ]
