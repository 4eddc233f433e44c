"""Groups primitives by the kinds of the report, which distinguishes reorders by purpose."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from job.profile.onednn_log import INT8_TYPES, Primitive
from job.profile.shapes import is_depthwise

REORDER = "reorder"
QUANTIZE = f"{REORDER}: quantize"
DEQUANTIZE = f"{REORDER}: dequantize"
SIGN = f"{REORDER}: change of sign"
LAYOUT = f"{REORDER}: change of layout"
RESCALE = f"{REORDER}: rescale"
COPY = f"{REORDER}: copy"
# oneDNN's kind -> the report's kind; all other kinds have the same name in both.
NAMES = {"inner_product": "matrix product", "matmul": "matrix product"}


def kind_of(primitive: Primitive) -> str:
    """Return a primitive's kind as named in the report."""
    if primitive.kind == REORDER:
        return reorder_of(primitive)
    if primitive.kind == "convolution" and is_depthwise(primitive.shape):
        return "depthwise convolution"
    return NAMES.get(primitive.kind, primitive.kind)


def reorder_of(primitive: Primitive) -> str:
    """Return the purpose of a reorder, from the types and formats of its source and target."""
    source, target = primitive.data_type, primitive.target_type
    if source != target:
        if target in INT8_TYPES:
            return SIGN if source in INT8_TYPES else QUANTIZE
        return DEQUANTIZE if source in INT8_TYPES else REORDER
    if primitive.source_format != primitive.target_format:
        return LAYOUT
    return RESCALE if primitive.is_scaled else COPY


def total_ms(primitives: Iterable[Primitive]) -> float:
    """Return the sum of the primitives' times."""
    return sum(primitive.milliseconds for primitive in primitives)


def by_kind(primitives: Sequence[Primitive]) -> dict[str, list[Primitive]]:
    """Group primitives by kind, the kind with the most time first."""
    groups = defaultdict(list)
    for primitive in primitives:
        groups[kind_of(primitive)].append(primitive)
    return dict(sorted(groups.items(), key=lambda item: -total_ms(item[1])))


def kinds_record(primitives: Sequence[Primitive]) -> dict[str, Any]:
    """Return the milliseconds of all primitives, and count and milliseconds of each kind."""
    kinds = [
        {"kind": kind, "count": len(group), "milliseconds": round(total_ms(group), 4)}
        for kind, group in by_kind(primitives).items()
    ]
    return {"milliseconds": round(total_ms(primitives), 4), "kinds": kinds}
