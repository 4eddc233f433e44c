"""What the program of a saved INT8 model tells of its layers: their names and their neighbours."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from job.engine.inference.paddle_format import OpDesc, read_program

# Kind of primitive -> the types of the ops that run as one, and the slots of their weights.
LAYERS = {
    "convolution": {"conv2d": "Filter", "depthwise_conv2d": "Filter", "fused_conv2d": "Filter"},
    "product": {"fc": "W", "mul": "Y", "matmul_v2": "Y", "fused_matmul": "Y"},
}


@dataclass(frozen=True)
class OpGraph:
    """Layers and islands of an INT8 model.

    Attributes:
        layers: names of the layers in the order in which they run, by kind: ``convolution`` and
            ``product``. A name is that of the layer's output in the FP32 model, which
            ``/int8/skip_ops`` knows; empty if that model has no such layer.
        islands: ``op`` (name) and ``type`` of each INT8 op without INT8 neighbours.
    """

    layers: dict[str, list[str]]
    islands: list[dict[str, str]]


def read_op_graph(fp32: Path, int8: Path) -> OpGraph:
    """Read ``fp32``.pdmodel and ``int8``.pdmodel, both given as prefixes."""
    names = {
        weight_of(op): outputs_of(op)[0]
        for op in read_program(Path(f"{fp32}.pdmodel")).blocks[0].ops
        if weight_of(op)
    }
    ops = read_program(Path(f"{int8}.pdmodel")).blocks[0].ops
    layers = {
        kind: [names.get(weight_of(op), "") for op in ops if op.type in types]
        for kind, types in LAYERS.items()
    }
    return OpGraph(layers, islands(ops, names))


def islands(ops: Sequence[OpDesc], names: dict[str, str]) -> list[dict[str, str]]:
    """INT8 ops whose inputs are all quantized for them and whose outputs no INT8 op reads.

    Args:
        ops: of the INT8 program.
        names: weight -> output of the FP32 layer that has it.
    """
    readers = defaultdict(list)
    for op in ops:
        for name in inputs_of(op):
            readers[name].append(op)
    # An op that writes FP32 ends INT8 as a dequantize op does.
    kept = {name for op in ops if is_int8(op) and not writes_fp32(op) for name in outputs_of(op)}
    alone = []
    for op in ops:
        fed = any(name in kept for name in inputs_of(op))
        read = any(is_int8(r) for n in outputs_of(op) if n in kept for r in readers[n])
        if is_int8(op) and not fed and not read:
            name = names.get(weight_of(op)) or original_name(outputs_of(op)[0], readers)
            alone.append({"op": name, "type": op.type})
    return alone


def is_int8(op: OpDesc) -> bool:
    """Whether an op computes on 8-bit integers."""
    # The audit asks the same, but its module imports paddleslim, which takes longer than all here.
    # Paddle does not mark adds of two activations; it only gives them a scale.
    marked = any(
        a.name == "scale_out" or (a.name == "mkldnn_data_type" and a.s == "int8") for a in op.attrs
    )
    return marked and op.type not in ("quantize", "dequantize")


def writes_fp32(op: OpDesc) -> bool:
    """Whether an INT8 op dequantizes its own output."""
    return any(a.name == "force_fp32_output" and a.b for a in op.attrs)


def original_name(output: str, readers: dict[str, list[OpDesc]]) -> str:
    """The name that an output had before a dequantize op took it over."""
    for op in readers[output]:
        if op.type == "dequantize":
            return outputs_of(op)[0]
    return output


def weight_of(op: OpDesc) -> str:
    """The weight of a layer; empty for other ops."""
    slot = next((types[op.type] for types in LAYERS.values() if op.type in types), "")
    return next((s.arguments[0] for s in op.inputs if s.parameter == slot and s.arguments), "")


def inputs_of(op: OpDesc) -> list[str]:
    """Names of all inputs of an op."""
    return [name for slot in op.inputs for name in slot.arguments]


def outputs_of(op: OpDesc) -> list[str]:
    """Names of all outputs of an op."""
    return [name for slot in op.outputs for name in slot.arguments]
