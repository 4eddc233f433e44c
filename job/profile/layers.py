"""The convolutions and matrix products of an INT8 model, each beside its twin in FP32."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from job.profile.onednn_log import COMPUTE, Primitive


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product of the INT8 model.

    Attributes:
        name: of its output in the FP32 model, as ``/int8/skip_ops`` knows it; empty if unknown.
        fp32: the same layer in the FP32 model; None if that has none of this shape.
        int8: what the INT8 model runs, be it in INT8 or not.
    """

    name: str
    fp32: Primitive | None
    int8: Primitive

    @property
    def ratio(self) -> float | None:
        """How many times as fast as in FP32."""
        if self.fp32 is None or self.int8.milliseconds == 0:
            return None
        return self.fp32.milliseconds / self.int8.milliseconds


def match(
    fp32: Iterable[Primitive], int8: Iterable[Primitive], names: Mapping[str, Sequence[str]]
) -> list[Layer]:
    """Match the layers of both models by shape and, among equal shapes, by order.

    Args:
        fp32: what the FP32 model runs, in order.
        int8: what the INT8 model runs, in order.
        names: of the INT8 model's layers in their order, under ``convolution`` and ``product``.
    """
    twins: dict[str, list[Primitive]] = defaultdict(list)
    for primitive in fp32:
        if primitive.kind in COMPUTE:
            twins[primitive.shape].append(primitive)
    found = [primitive for primitive in int8 if primitive.kind in COMPUTE]
    counts = Counter(map(_sort, found))
    # An op outside oneDNN leaves no primitive: then nothing says which name is whose.
    known = {
        sort: iter(names[sort] if len(names.get(sort, ())) == count else [""] * count)
        for sort, count in counts.items()
    }
    return [
        Layer(next(known[_sort(p)]), twins[p.shape].pop(0) if twins[p.shape] else None, p)
        for p in found
    ]


def _sort(primitive: Primitive) -> str:
    return "convolution" if primitive.kind == "convolution" else "product"
