"""Tables of the errors of INT8 ops and of the fallback to FP32."""

from collections.abc import Mapping
from typing import Any

from job import text_format
from job.report.render.blocks import Block, Grid, Text, figures, words


def difference_blocks(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the ops with the largest errors and the search for ops to keep in FP32."""
    blocks: list[Block] = []
    if report["audit"]["differences"]:
        blocks.append(differences_grid(report))
    else:
        blocks.append(Text("No INT8 op differs from the fake-quantized model."))
    if report["audit"]["fallback"] is not None:
        blocks.append(fallback_grid(report))
    return tuple(blocks)


def differences_grid(report: Mapping[str, Any]) -> Grid:
    """Return the ops that add the largest errors."""
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
        *words("Op", "Type"),
        *figures("Signal-to-noise dB", "Largest error %"),
    )
    note = (
        "Each row shows the error that one INT8 op adds. The op is compared with the "
        "same op of the fake-quantized model, on the same inputs before they are rounded to "
        "8 bits. Largest error: in percent of the largest correct value. Rounding alone gives 30 "
        "to 45 dB."
    )
    return Grid("INT8 ops with the largest errors", columns, rows, note)


def fallback_grid(report: Mapping[str, Any]) -> Grid:
    """Return the search for ops to keep in FP32, one row for each scored model."""
    fallback = report["audit"]["fallback"]
    rows = tuple(
        (
            "none" if step["op"] is None else step["op"],
            text_format.count(number),
            f"{step['top1_drop']:.2f}".replace("-", text_format.MINUS),
            f"{step['signal_to_noise_db']:.1f}".replace("-", text_format.MINUS),
            "used" if number == fallback["kept"] else "",
        )
        for number, step in enumerate(fallback["steps"])
    )
    columns = (*words("Moved to FP32"), *figures("Ops in FP32", "Top-1 drop", "SNR dB"), *words(""))
    few = (
        "The images are too few to measure the limit of the top-1 drop, so the models are compared "
        "by their SNR. "
    )
    note = (
        "Each row keeps one more op in FP32. Top-1 drop: FP32 minus INT8 on the selection "
        f"split, in percentage points. SNR: signal-to-noise ratio against FP32. "
        f"{few if fallback['measure'] == 'signal_to_noise' else ''}"
        f"The search stopped because {fallback['stopped']}."
    )
    return Grid("Fallback to FP32", columns, rows, note)
