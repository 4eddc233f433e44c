"""Tables of how far INT8 ops are from the fake-quantized model, and of what went back to FP32."""

from collections.abc import Mapping
from typing import Any

from job import text_format
from job.report.render.blocks import Block, Grid, Text, figures, words


def difference_blocks(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """The ops that differ most, and the search for those that must stay in FP32."""
    blocks: list[Block] = []
    if report["audit"]["differences"]:
        blocks.append(differences_grid(report))
    else:
        blocks.append(Text("No INT8 operator differs from the fake-quantized model."))
    if report["audit"]["fallback"] is not None:
        blocks.append(fallback_grid(report))
    return tuple(blocks)


def differences_grid(report: Mapping[str, Any]) -> Grid:
    """The ops that add the largest errors."""
    rows = tuple(
        (
            one["op"],
            one["type"],
            f"{one['signal_to_noise_db']:.1f}".replace("-", text_format.MINUS),
            f"{100 * one['largest_error']:.2f}",
        )
        for one in report["audit"]["differences"]
    )
    columns = (
        *words("Operator", "Type"),
        *figures("Signal to noise dB", "Largest error %"),
    )
    note = (
        "What each operator adds, against the fake-quantized model's on the same inputs before "
        "they are rounded to 8 bits; errors in percent of the largest right value. Rounding alone "
        "leaves 30 to 45 dB."
    )
    return Grid("Operators that INT8 changes most", columns, rows, note)


def fallback_grid(report: Mapping[str, Any]) -> Grid:
    """The search for operators that must stay in FP32, model by model."""
    fallback = report["audit"]["fallback"]
    rows = tuple(
        (
            "none" if step["op"] is None else step["op"],
            text_format.count(number),
            f"{step['top1_drop']:.2f}".replace("-", text_format.MINUS),
            "kept" if number == fallback["kept"] else "",
        )
        for number, step in enumerate(fallback["steps"])
    )
    columns = (*words("Next in FP32"), *figures("In FP32", "Top-1 drop"), *words(""))
    note = f"Points lost on the selection split. It stopped because {fallback['stopped']}."
    return Grid("Fallback to FP32", columns, rows, note)
