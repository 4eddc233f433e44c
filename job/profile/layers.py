"""Matches convolutions and matrix products of INT8 models with layers of FP32 models."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from job.profile.onednn_log import COMPUTE, Primitive


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product of the INT8 model.

    Attributes:
        name: name of the layer's output in the FP32 model, as used in ``/int8/skip_ops``; empty if
            unknown.
        fp32: the primitive of the same layer in the FP32 model; None if it has none of this shape.
        int8: the primitive in the INT8 model, which may run in FP32.
    """

    name: str
    fp32: Primitive | None
    int8: Primitive

    @property
    def ratio(self) -> float | None:
        """Speedup of the layer: FP32 time divided by INT8 time; None if unknown."""
        if self.fp32 is None or self.int8.milliseconds == 0:
            return None
        return self.fp32.milliseconds / self.int8.milliseconds


def match(
    fp32: Iterable[Primitive], int8: Iterable[Primitive], names: Mapping[str, Sequence[str]]
) -> list[Layer]:
    """Match the layers of both models by shape and, among equal shapes, by order.

    Args:
        fp32: primitives of the FP32 model, in order.
        int8: primitives of the INT8 model, in order.
        names: names of the INT8 model's layers, in order, under ``convolution`` and ``product``.
    """
    counterparts: dict[str, list[Primitive]] = defaultdict(list)
    for primitive in fp32:
        if primitive.kind in COMPUTE:
            counterparts[primitive.shape].append(primitive)
    computing = [primitive for primitive in int8 if primitive.kind in COMPUTE]
    counts = Counter(map(_sort, computing))
    # An op that runs outside oneDNN has no primitive. Then names cannot be assigned by order.
    remaining_names = {
        sort: iter(names[sort] if len(names.get(sort, ())) == count else [""] * count)
        for sort, count in counts.items()
    }
    return [
        Layer(
            next(remaining_names[_sort(p)]),
            counterparts[p.shape].pop(0) if counterparts[p.shape] else None,
            p,
        )
        for p in computing
    ]


def _sort(primitive: Primitive) -> str:
    return "convolution" if primitive.kind == "convolution" else "product"
