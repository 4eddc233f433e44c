"""Kinds of primitives as a report names them, with reorders told apart by what they are for."""

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
# oneDNN's kind -> how it is called here; other kinds keep their names.
NAMES = {"inner_product": "matrix product", "matmul": "matrix product"}


def kind_of(primitive: Primitive) -> str:
    """A primitive's kind as the report names it."""
    if primitive.kind == REORDER:
        return reorder_of(primitive)
    if primitive.kind == "convolution" and is_depthwise(primitive.shape):
        return "depthwise convolution"
    return NAMES.get(primitive.kind, primitive.kind)


def reorder_of(primitive: Primitive) -> str:
    """What a reorder is for, from the types and formats on its two sides."""
    source, target = primitive.data_type, primitive.target_type
    if source != target:
        if target in INT8_TYPES:
            return SIGN if source in INT8_TYPES else QUANTIZE
        return DEQUANTIZE if source in INT8_TYPES else REORDER
    if primitive.source_format != primitive.target_format:
        return LAYOUT
    return RESCALE if primitive.is_scaled else COPY


def total_ms(primitives: Iterable[Primitive]) -> float:
    """Time in all of them."""
    return sum(primitive.milliseconds for primitive in primitives)


def by_kind(primitives: Sequence[Primitive]) -> dict[str, list[Primitive]]:
    """Primitives of each kind, the slowest kind first."""
    groups = defaultdict(list)
    for primitive in primitives:
        groups[kind_of(primitive)].append(primitive)
    return dict(sorted(groups.items(), key=lambda item: -total_ms(item[1])))


def kinds_record(primitives: Sequence[Primitive]) -> dict[str, Any]:
    """Milliseconds of all primitives, and count and milliseconds of each kind."""
    kinds = [
        {"kind": kind, "count": len(group), "milliseconds": round(total_ms(group), 4)}
        for kind, group in by_kind(primitives).items()
    ]
    return {"milliseconds": round(total_ms(primitives), 4), "kinds": kinds}
