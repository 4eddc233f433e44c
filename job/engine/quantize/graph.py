"""Reads a fake-quantized program: what computes a value, and whether it can be negative."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from paddle.static import Program

from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE

KEEPING_SIGN = ("pool2d", "dropout", "reshape2", "transpose2", "flatten_contiguous_range")
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
RELUS = {"relu", "relu6"}


class Graph:
    """Producers and readers of a program's variables, across quantize and dequantize ops.

    Args:
        program: the program.

    Attributes:
        block: the program's block.
        producers: variable -> op that writes it.
        readers: variable -> types of the ops that read it, including quantize and dequantize ops.
    """

    def __init__(self, program: Program) -> None:
        self.block = program.global_block()
        self.producers = {n: op for op in self.block.ops for n in op.output_arg_names}
        self.readers: dict[str, list[str]] = defaultdict(list)
        for op in self.block.ops:
            for name in op.input_arg_names:
                self.readers[name].append(op.type)

    def source(self, name: str):
        """Return the op that computes ``name``; None for inputs and weights."""
        op = self.producers.get(name)
        while op is not None and op.type in (QUANTIZE, DEQUANTIZE):
            op = self.producers.get(op.input("X")[0])
        return op

    def is_unsigned(self, name: str) -> bool:
        """Return whether Paddle quantizes ``name`` to u8.

        Paddle quantizes the output of a relu to u8, and the output of a relu6 that is fused into a
        convolution. Ops that keep the sign, such as pools and reshapes, keep the data type of their
        input. Paddle quantizes all other values to s8, even if they are never negative.
        """
        op = self.source(name)
        if op is None or op.type == "relu":
            return op is not None
        if op.type == "relu6":
            return self.is_convolution(op.input("X")[0])
        return op.type in KEEPING_SIGN and all(map(self.is_unsigned, self.activations_of(op)))

    def is_convolution(self, name: str) -> bool:
        """Return whether ``name`` is the output of a convolution with its fused ops."""
        op = self.source(name)
        if op is None or any(len(self.readers[n]) > 1 for n in op.output_arg_names):
            return False
        if op.type in ("batch_norm", "elementwise_add"):
            return any(map(self.is_convolution, self.activations_of(op)))
        return op.type in CONVOLUTIONS

    def plain(self, name: str) -> str:
        """Return the activation that ``name`` was dequantized from; other names unchanged."""
        producer = self.producers.get(name)
        if producer is None or producer.type != DEQUANTIZE:
            return name
        quantizer = self.producers.get(producer.input("X")[0])
        # A weight is stored in 8 bits, so no op quantizes it.
        return name if quantizer is None else quantizer.input("X")[0]

    def activations_of(self, op: Any) -> list[str]:
        """Return the inputs of an op that are not parameters."""
        return [name for name in op.input_arg_names if not self.block.var(name).persistable]

    def scale_of(self, name: str) -> str | None:
        """Return the scale variable of the quantize op that reads ``name``; None without one."""
        for op in self.block.ops:
            if op.type == QUANTIZE and op.input("X")[0] == name:
                return op.input("Scale")[0]
        return None


def residual_adds(graph: Graph) -> Iterator[Any]:
    """Yield the adds of two activations; adds of a bias are excluded."""
    for op in graph.block.ops:
        of_weight = any(graph.block.var(name).persistable for name in op.input_arg_names)
        if op.type == "elementwise_add" and not of_weight:
            yield op


def signed_residuals(program: Program) -> Iterator[tuple[str, str]]:
    """Yield (output, scale variable) of each relu(add(a, b)) with both a and b signed.

    oneDNN's convolution with a fused add writes its output in the data type of the residual. For
    the output of a relu, Paddle computes the scale for u8 with 255 steps. If the residual is
    signed, the output is written as s8 with at most 127 steps. Without a correction, values above
    half the range are clipped.
    """
    graph = Graph(program)
    adds = {op.output("Out")[0]: op for op in residual_adds(graph)}
    for op in program.global_block().ops:
        if op.type not in RELUS:
            continue
        source = graph.source(op.input("X")[0])
        add = adds.get(source.output_arg_names[0]) if source is not None else None
        if add is None or any(graph.is_unsigned(name) for name in add.input_arg_names):
            continue
        scale = graph.scale_of(op.output("Out")[0])
        if scale is not None:
            yield op.output("Out")[0], scale
