"""Which values of the fake-quantized model the ops of the INT8 model compute.

An INT8 op stands for several ops of the fake-quantized model, such as convolution, batch norm,
residual sum and relu, and Paddle's passes give its output a new name. Ops with weights are found by
their weights, all others by what they read.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paddle.static import Program

from job.engine.compare.op_graph import inputs_of, outputs_of, writes_fp32
from job.engine.compare.op_graph import weight_of as int8_weight_of
from job.engine.inference.paddle_format import OpDesc
from job.engine.int8.audit import ACTIVATIONS, attribute, is_int8
from job.engine.int8.graph_fixes import Graph
from job.engine.int8.skip_ops import output_of, weight_of
from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE

ADD = "elementwise_add"
# Type of an INT8 op without weights -> its type in the fake-quantized model.
WITHOUT_WEIGHTS = {"pool2d": "pool2d", "concat": "concat", ADD: ADD, "fused_elementwise_add": ADD}

# What tells one pool, or one concatenation, from another.
COMPUTES = (
    "pooling_type",
    "global_pooling",
    "adaptive",
    "exclusive",
    "ceil_mode",
    "ksize",
    "strides",
    "paddings",
    "axis",
)


@dataclass(frozen=True)
class Counterpart:
    """An INT8 op and what it stands for.

    Attributes:
        op: the name of its output in the fake-quantized model, which ``/int8/skip_ops`` knows.
        type: its type there.
        result: the value there that the INT8 op computes: the output of the last op folded in.
        output: the INT8 op's own output.
        scale: multiplied by it, a value is the 8-bit integer that the INT8 op writes; None if it
            writes floating point.
        feeds_int8: whether an INT8 op reads that integer.
    """

    op: str
    type: str
    result: str
    output: str
    scale: float | None
    feeds_int8: bool


def counterparts(fake: "FakeOps", int8: Sequence[OpDesc]) -> list[Counterpart]:
    """The INT8 ops in their order; those that stand for nothing known are left out.

    Args:
        fake: the fake-quantized model's ops.
        int8: the ops of the INT8 program.
    """
    readers = defaultdict(list)
    for op in int8:
        for name in inputs_of(op):
            readers[name].append(op)
    found, scales = [], {}
    for op in int8:
        output = outputs_of(op)[0]
        scales[output] = scale_of(op, scales)
        own = fake.take(op) if is_int8(op) else None
        result = fake.same(op) if own is None else fake.follow(op, own)
        fake.names[output] = result
        if own is not None:
            scale = None if writes_fp32(op) else scales[output]
            feeds_int8 = scale is not None and any(is_int8(reader) for reader in readers[output])
            found.append(Counterpart(output_of(own), own.type, result, output, scale, feeds_int8))
    return found


def scale_of(op: OpDesc, scales: dict[str, float]) -> float | None:
    """The scale of what an op writes; pools and concatenations keep that of their input."""
    # An add has both kinds, of which the capital ones mean nothing.
    for name in ("scale_out", "Scale_out", "Scale"):
        value = attribute(op, name)
        if isinstance(value, float):
            return value
    return next((scales[name] for name in inputs_of(op) if name in scales), None)


class FakeOps:
    """The fake-quantized model's ops, seen through quantize/dequantize pairs.

    Args:
        program: the fake-quantized program.
        int8: the ops of the INT8 program.

    Attributes:
        graph: of the program.
        names: variable of the INT8 model -> variable of this one with the same value.
    """

    def __init__(self, program: Program, int8: Sequence[OpDesc]) -> None:
        self.graph = Graph(program)
        self.block = self.graph.block
        self.names = {name: name for name in self.block.vars}
        # Ops that were not folded keep type and output.
        self.apart = {(op.type, name) for op in int8 for name in outputs_of(op)}
        self.ops = [op for op in self.block.ops if op.type not in (QUANTIZE, DEQUANTIZE)]
        self.readers, self.by_weight = defaultdict(list), defaultdict(list)
        for op in self.ops:
            for name in self.activations(op):
                self.readers[name].append(op)
            self.by_weight[weight_of(self.graph, op)].append(op)

    def activations(self, op: Any) -> Iterator[str]:
        """What an op reads apart from weights."""
        for name in op.input_arg_names:
            source = self.unpaired(name)
            if not self.block.var(source).persistable:
                yield source

    def unpaired(self, name: str) -> str:
        """The variable that pairs quantized and dequantized."""
        producer = self.graph.producers.get(name)
        while producer is not None and producer.type in (QUANTIZE, DEQUANTIZE):
            name = producer.input("X")[0]
            producer = self.graph.producers.get(name)
        return name

    def take(self, op: OpDesc) -> Any:
        """The op that an INT8 op starts with, once; None if it is not known."""
        weight = int8_weight_of(op)
        if weight:
            same = self.by_weight[weight]
        else:
            sources = [self.names.get(name, "") for name in inputs_of(op)]
            kind = WITHOUT_WEIGHTS.get(op.type)
            readers = self.readers[sources[0]] if sources else []
            same = [
                reader
                for reader in readers
                if reader.type == kind and sorted(self.activations(reader)) == sorted(sources)
            ]
            # Several may read the same, such as a pool of maxima and one of means.
            same.sort(key=lambda reader: self.differences(op, sources, reader))
        taken = next((one for one in same if one in self.ops), None)
        if taken is not None:
            self.ops.remove(taken)
        return taken

    def differences(self, op: OpDesc, sources: Sequence[str], other: Any) -> int:
        """In how many respects an INT8 op differs from an op that reads the same."""
        asked = [name for name in COMPUTES if other.has_attr(name)]
        attributes = sum(attribute(op, name) != other.attr(name) for name in asked)
        return attributes + (list(self.activations(other)) != list(sources))

    def follow(self, op: OpDesc, first: Any) -> str:
        """The output of the last op that was folded into the INT8 op ``op``."""
        residual = any(slot.parameter == "ResidualData" and slot.arguments for slot in op.inputs)
        output = output_of(first)
        while len(self.readers[output]) == 1:
            (reader,) = self.readers[output]
            if (reader.type, main_output(reader)) in self.apart:
                break
            if reader.type == ADD and len(set(self.activations(reader))) == 2:
                if not residual:
                    break
                residual = False
            elif reader.type not in (ADD, "batch_norm", *ACTIVATIONS):
                break
            output = main_output(reader)
        return output

    def same(self, op: OpDesc) -> str:
        """The name of the value that an op computes that is no INT8 op."""
        if op.type in ("quantize", "dequantize"):
            return self.names.get(inputs_of(op)[0], "")
        return self.names.get(outputs_of(op)[0], "")


def main_output(op: Any) -> str:
    """An op's result, apart from statistics and shapes."""
    slot = next(slot for slot in ("Y", "Out", "Output") if slot in op.output_names)
    return op.output(slot)[0]
