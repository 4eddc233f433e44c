"""Equalization: scales channels so that all of them use the range of their activation.

An activation has one scale for all channels. Rounding therefore damages a channel with small values
most. Behind a batch norm, such a channel can be multiplied by a factor, if the convolutions that
read the channel divide their weights for it by the same factor. A relu, a max pool and a sum keep
the factor. Therefore all parts of a chain of sums have the same factors.
Source: Nagel, van Baalen, Blankevoort, Welling, "Data-Free Quantization Through Weight Equalization
and Bias Correction" (arXiv:1906.04721). Here measured ranges replace the ranges of weights.

The FP32 model computes the same, except that relu6 clips values above the range of their channel.
The range minimizes the error of rounding and clipping, so quantization would clip these values too.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle.static import Program

from job.engine.quantize.graph import CONVOLUTIONS, RELUS, Graph, residual_adds
from job.engine.quantize.layers import Layer

LARGEST_FACTOR = 8.0
# Values of a channel that must be measured. The range of fewer values is too small for other
# images.
ENOUGH_VALUES = 10_000
# A convolution of all channels has one weight scale per output. Larger factors would make weights
# too small for it. A depthwise convolution has one weight scale per channel.
EXPONENT_DEPTHWISE, EXPONENT_DENSE = 1.0, 0.5


@dataclass(frozen=True)
class Junction:
    """Activations whose channels can be scaled together.

    Attributes:
        activations: names of the variables that convolutions or sums read.
        norms: names of the scale and the bias of each batch norm that computes them.
        readers: the convolutions that read them.
    """

    activations: tuple[str, ...]
    norms: tuple[tuple[str, str], ...]
    readers: tuple[Layer, ...]


class _Search:
    """Finds the junctions of a program; see :func:`junctions_of`."""

    def __init__(
        self, program: Program, layers: Mapping[str, Sequence[Layer]], outputs: Collection[str]
    ) -> None:
        self.graph, self.outputs = Graph(program), outputs
        self.sums = {op.output("Out")[0]: op for op in residual_adds(self.graph)}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for op in self.graph.block.ops:
            for name in op.input_arg_names:
                self.readers[name].append(op)
        uses = Counter(name for op in self.graph.block.ops for name in op.input_arg_names)
        self.once = {name for name, count in uses.items() if count == 1}
        self.alone = {
            same[0].weight: same[0]
            for same in layers.values()
            if len(same) == 1 and same[0].weight in self.once and same[0].window
        }

    def keeps_factors(self, op: Any) -> bool:
        """Return whether the op scales a channel of its output if it is scaled in all inputs."""
        if op.type == "pool2d":
            return bool(op.attr("pooling_type") == "max")
        if op.type == "elementwise_add" and op.output("Out")[0] in self.sums:
            shapes = [self.graph.block.var(name).shape for name in op.input_arg_names]
            return len(shapes[0]) == 4 and all(shape == shapes[0] for shape in shapes)
        return op.type in RELUS

    def connected(self, start: str) -> list[str]:
        """Return the variables whose channels must have the same factors as those of ``start``."""
        found: dict[str, None] = {}
        left = [start]
        while left:
            name = left.pop()
            if name not in found:
                found[name] = None
                for op in (self.graph.producers.get(name), *self.readers[name]):
                    if op is not None and self.keeps_factors(op):
                        left += [*op.input_arg_names, *op.output("Out")]
        return list(found)

    def junction(self, names: Sequence[str]) -> Junction | None:
        """Return connected variables as a junction; None if another op computes or reads them."""
        norms: list[tuple[str, str]] = []
        convolutions: list[Layer] = []
        activations: dict[str, None] = {}
        for name in names:
            producer = self.graph.producers.get(name)
            if producer is None or name in self.outputs or not self.readers[name]:
                return None
            if producer.type == "batch_norm":
                norms.append((producer.input("Scale")[0], producer.input("Bias")[0]))
            elif not self.keeps_factors(producer):
                return None
            for reader in self.readers[name]:
                if reader.type in CONVOLUTIONS and reader.input("Filter")[0] in self.alone:
                    convolutions.append(self.alone[reader.input("Filter")[0]])
                    activations[name] = None
                elif not self.keeps_factors(reader):
                    return None
                elif reader.type == "elementwise_add":
                    activations[name] = None
        if not convolutions or not self.once.issuperset(p for norm in norms for p in norm):
            return None
        return Junction(tuple(activations), tuple(norms), tuple(convolutions))


def junctions_of(
    program: Program, layers: Mapping[str, Sequence[Layer]], outputs: Collection[str]
) -> list[Junction]:
    """Return the activations whose channels can be scaled.

    Args:
        program: FP32 inference program.
        layers: the layers that read each weight.
        outputs: names of the program's outputs, which are never scaled.
    """
    search = _Search(program, layers, outputs)
    seen: set[str] = set()
    found = []
    for op in search.graph.block.ops:
        if op.type == "batch_norm" and op.output("Y")[0] not in seen:
            names = search.connected(op.output("Y")[0])
            seen.update(names)
            found.append(search.junction(names))
    return [junction for junction in found if junction is not None]


def factors(junction: Junction, ranges: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the factor of each channel, from 1 to ``LARGEST_FACTOR``.

    No activation gets a larger range.

    Args:
        junction: the activations.
        ranges: the range of each channel of each activation, [channels].
    """
    measured = [ranges[name] for name in junction.activations]
    depthwise = all(layer.groups == len(measured[0]) for layer in junction.readers)
    exponent = EXPONENT_DEPTHWISE if depthwise else EXPONENT_DENSE
    room = [
        np.divide(each.max(), each, out=np.full(each.shape, np.inf), where=each > 0)
        for each in measured
    ]
    return np.clip(np.min(room, axis=0), 1.0, LARGEST_FACTOR) ** exponent


def equalized(
    junction: Junction, factor: np.ndarray, values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return new values of the batch norms' parameters and of the readers' weights.

    Args:
        junction: the activations.
        factor: the factor of each channel, [channels].
        values: current values by name.
    """
    changed = {name: values[name] * factor for norm in junction.norms for name in norm}
    for layer in junction.readers:
        weight = values[layer.weight]
        groups = weight.reshape(layer.groups, -1, *weight.shape[1:])
        divisors = factor.reshape(layer.groups, 1, weight.shape[1], 1, 1)
        changed[layer.weight] = (groups / divisors).reshape(weight.shape)
    return {name: value.astype(np.float32) for name, value in changed.items()}
