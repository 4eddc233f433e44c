"""Gives never-negative values the 255 steps that oneDNN has for them.

PaddleSlim's grid has 127 steps on each side of zero. oneDNN stores values behind a relu as unsigned
bytes with 255 steps, so half of PaddleSlim's rounding error would exist in training only. Paddle's
native kernels read the attributes ``qmin`` and ``qmax``. Paddle's INT8 passes derive the 255 steps
themselves and do not expect these attributes.
"""

from collections.abc import Collection

from paddle.static import Program

from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE
from job.engine.quantize.graph import Graph, signed_residuals
from job.engine.quantize.pact import clips

LOWEST, HIGHEST = "qmin", "qmax"
UNSIGNED_STEPS = 255


def unsigned_values(program: Program) -> set[str]:
    """Return the quantized values of an inference program that oneDNN stores as unsigned bytes."""
    graph, clipped = Graph(program), clips(program)
    # oneDNN stores these sums as signed bytes, see signed_residuals.
    signed = {output for output, _ in signed_residuals(program)}
    found = set()
    for op in program.global_block().ops:
        if op.type != QUANTIZE:
            continue
        (name,) = op.input("X")
        source, _ = clipped.get(name, (name, ""))
        if source not in signed and graph.is_unsigned(source):
            found.add(name)
    return found


def use_unsigned_steps(program: Program, values: Collection[str] | None = None) -> int:
    """Set 255 steps on the quantize and dequantize ops of unsigned values.

    Args:
        program: fake-quantized program.
        values: the unsigned values; None finds them, which needs an inference program.

    Returns:
        The number of quantize ops with 255 steps.
    """
    if values is None:
        values = unsigned_values(program)
    quantized = set()
    for op in program.global_block().ops:
        if op.type == QUANTIZE and op.input("X")[0] in values:
            quantized.add(op.output("Y")[0])
        elif not (op.type == DEQUANTIZE and op.input("X")[0] in quantized):
            continue
        op._set_attr(LOWEST, 0)
        op._set_attr(HIGHEST, UNSIGNED_STEPS)
    program._sync_with_cpp()
    return len(quantized)


def remove_steps(program: Program) -> None:
    """Remove the attributes of :func:`use_unsigned_steps`, for Paddle's INT8 passes."""
    for op in program.global_block().ops:
        if op.type in (QUANTIZE, DEQUANTIZE):
            for name in (LOWEST, HIGHEST):
                if op.has_attr(name):
                    op._remove_attr(name)
    program._sync_with_cpp()
