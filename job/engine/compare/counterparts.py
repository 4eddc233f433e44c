"""Maps the ops of the INT8 model to values of the fake-quantized model.

An INT8 op replaces several ops of the fake-quantized model, such as convolution, batch norm,
residual sum and relu, and Paddle's passes rename its output. Ops with weights are matched by their
weights, other ops by their inputs.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paddle.static import Program

from job.engine.compare.op_graph import weight_of as int8_weight_of
from job.engine.compare.op_graph import writes_fp32
from job.engine.inference.paddle_format import OpDesc, attribute, inputs_of, is_int8, outputs_of
from job.engine.int8.skip_ops import output_of, weight_of
from job.engine.quantize.fake_quantize import DEQUANTIZE, QUANTIZE
from job.engine.quantize.graph import Graph

ADD = "elementwise_add"
# Type of an INT8 op without weights -> its type in the fake-quantized model.
WITHOUT_WEIGHTS = {"pool2d": "pool2d", "concat": "concat", ADD: ADD, "fused_elementwise_add": ADD}

# Attributes of an INT8 op that name the activation fused into the op.
FUSED_ACTIVATION = ("fuse_activation", "activation_type", "fuse_activation_type")
# Attributes that distinguish pools, or concatenations, of the same input.
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
    """An INT8 op and the ops of the fake-quantized model that it replaces.

    Attributes:
        op: output name of the first replaced op, as in ``/int8/skip_ops``.
        type: type of the first replaced op.
        result: variable of the fake-quantized model that the INT8 op computes: the output of the
            last replaced op.
        output: variable of the INT8 model that the INT8 op writes.
        scale: factor from a value to the 8-bit integer that the INT8 op writes; None if it writes
            floating point.
        feeds_int8: whether an INT8 op reads that integer.
    """

    op: str
    type: str
    result: str
    output: str
    scale: float | None
    feeds_int8: bool


def counterparts(fake: "FakeOps", int8: Sequence[OpDesc]) -> list[Counterpart]:
    """Return the counterparts of the INT8 ops in the order of the ops.

    INT8 ops without a match in the fake-quantized model are omitted.

    Args:
        fake: ops of the fake-quantized model.
        int8: ops of the INT8 program.
    """
    readers = defaultdict(list)
    for op in int8:
        for name in inputs_of(op):
            readers[name].append(op)
    matches, scales = [], {}
    for op in int8:
        output = outputs_of(op)[0]
        scales[output] = scale_of(op, scales)
        first = fake.take(op) if is_int8(op) else None
        result = fake.same(op) if first is None else fake.follow(op, first)
        fake.names[output] = result
        if first is not None:
            scale = None if writes_fp32(op) else scales[output]
            feeds_int8 = scale is not None and any(is_int8(reader) for reader in readers[output])
            name = output_of(first)
            matches.append(Counterpart(name, first.type, result, output, scale, feeds_int8))
    return matches


def scale_of(op: OpDesc, scales: dict[str, float]) -> float | None:
    """Return the scale of an op's output; pools and concatenations keep their input's scale."""
    # An add has scale_out and Scale_out, of which only scale_out is valid.
    for name in ("scale_out", "Scale_out", "Scale"):
        value = attribute(op, name)
        if isinstance(value, float):
            return value
    return next((scales[name] for name in inputs_of(op) if name in scales), None)


class FakeOps:
    """Ops of the fake-quantized model, without quantize and dequantize ops.

    Args:
        program: the fake-quantized program.
        int8: ops of the INT8 program.

    Attributes:
        graph: graph of the program.
        names: variable of the INT8 model -> variable of the fake-quantized model with that value.
    """

    def __init__(self, program: Program, int8: Sequence[OpDesc]) -> None:
        self.graph = Graph(program)
        self.block = self.graph.block
        self.names = {name: name for name in self.block.vars}
        # Ops that were not fused keep their type and their output.
        self.apart = {(op.type, name) for op in int8 for name in outputs_of(op)}
        self.ops = [op for op in self.block.ops if op.type not in (QUANTIZE, DEQUANTIZE)]
        self.readers, self.by_weight = defaultdict(list), defaultdict(list)
        for op in self.ops:
            for name in self.activations(op):
                self.readers[name].append(op)
            self.by_weight[weight_of(self.graph, op)].append(op)

    def activations(self, op: Any) -> Iterator[str]:
        """Yield the inputs of an op that are not weights, before quantization."""
        for name in op.input_arg_names:
            source = self.unpaired(name)
            if not self.block.var(source).persistable:
                yield source

    def unpaired(self, name: str) -> str:
        """Return the variable that quantize and dequantize ops made ``name`` from."""
        producer = self.graph.producers.get(name)
        while producer is not None and producer.type in (QUANTIZE, DEQUANTIZE):
            name = producer.input("X")[0]
            producer = self.graph.producers.get(name)
        return name

    def take(self, op: OpDesc) -> Any:
        """Return and remove the first op that an INT8 op replaces; None without a match."""
        weight = int8_weight_of(op)
        sources = [self.names.get(name, "") for name in inputs_of(op)]
        if weight:
            # Several ops can share a weight. They read different inputs.
            same = sorted(
                self.by_weight[weight],
                key=lambda user: set(self.activations(user)).isdisjoint(sources),
            )
        else:
            kind = WITHOUT_WEIGHTS.get(op.type)
            readers = self.readers[sources[0]] if sources else []
            same = [
                reader
                for reader in readers
                if reader.type == kind and sorted(self.activations(reader)) == sorted(sources)
            ]
            # Several ops can read the same input, such as a max pool and an average pool.
            same.sort(key=lambda reader: self.differences(op, sources, reader))
        taken = next((each for each in same if each in self.ops), None)
        if taken is not None:
            self.ops.remove(taken)
        return taken

    def differences(self, op: OpDesc, sources: Sequence[str], other: Any) -> int:
        """Return the number of differences between an INT8 op and an op with the same inputs."""
        compared = [name for name in COMPUTES if other.has_attr(name)]
        attributes = sum(attribute(op, name) != other.attr(name) for name in compared)
        return attributes + (list(self.activations(other)) != list(sources))

    def follow(self, op: OpDesc, first: Any) -> str:
        """Return the output of the last op that the INT8 op ``op`` replaces."""
        residual = any(slot.parameter == "ResidualData" and slot.arguments for slot in op.inputs)
        activation = any(attribute(op, name) for name in FUSED_ACTIVATION)
        output = output_of(first)
        while len(self.readers[output]) == 1:
            (reader,) = self.readers[output]
            if (reader.type, main_output(reader)) in self.apart:
                break
            if reader.type == ADD and len(set(self.activations(reader))) == 2:
                if not residual:
                    break
                residual = False
            elif reader.type not in (ADD, "batch_norm"):
                if not activation or len(list(self.activations(reader))) != 1:
                    break
                activation = False
            output = main_output(reader)
        return output

    def same(self, op: OpDesc) -> str:
        """Return the output of an op that does not run in INT8; empty if unknown."""
        if op.type in ("quantize", "dequantize"):
            return self.names.get(inputs_of(op)[0], "")
        return self.names.get(outputs_of(op)[0], "")


def main_output(op: Any) -> str:
    """Return an op's main output, not its statistics or shapes."""
    slot = next(slot for slot in ("Y", "Out", "Output") if slot in op.output_names)
    return op.output(slot)[0]
