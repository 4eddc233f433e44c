"""Reads the names and the neighbours of the layers of a saved INT8 model."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from job.engine.inference.paddle_format import OpDesc, inputs_of, is_int8, outputs_of, read_program

# Kind of oneDNN primitive -> types of the ops that run as this primitive -> slot of their weights.
LAYERS = {
    "convolution": {"conv2d": "Filter", "depthwise_conv2d": "Filter", "fused_conv2d": "Filter"},
    "product": {"fc": "W", "mul": "Y", "matmul_v2": "Y", "fused_matmul": "Y"},
}


@dataclass(frozen=True)
class OpGraph:
    """Layers and islands of an INT8 model.

    Attributes:
        layers: kind (``convolution`` or ``product``) -> names of the layers in order of execution.
            A name is the layer's output in the FP32 model, as in ``/int8/skip_ops``; empty if the
            FP32 model has no such layer.
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
    """Return the INT8 ops that no INT8 op feeds and whose outputs no INT8 op reads.

    Args:
        ops: ops of the INT8 program.
        names: weight -> output of the FP32 layer with this weight.
    """
    readers = defaultdict(list)
    for op in ops:
        for name in inputs_of(op):
            readers[name].append(op)
    # An op that writes FP32 ends a chain of INT8 ops, as a dequantize op does.
    kept = {name for op in ops if is_int8(op) and not writes_fp32(op) for name in outputs_of(op)}
    alone = []
    for op in ops:
        fed = any(name in kept for name in inputs_of(op))
        read = any(is_int8(r) for n in outputs_of(op) if n in kept for r in readers[n])
        if is_int8(op) and not fed and not read:
            name = names.get(weight_of(op)) or original_name(outputs_of(op)[0], readers)
            alone.append({"op": name, "type": op.type})
    return alone


def writes_fp32(op: OpDesc) -> bool:
    """Return whether an INT8 op dequantizes its output."""
    return any(a.name == "force_fp32_output" and a.b for a in op.attrs)


def original_name(output: str, readers: dict[str, list[OpDesc]]) -> str:
    """Return the name of an output before Paddle's passes inserted a dequantize op after it."""
    for op in readers[output]:
        if op.type == "dequantize":
            return outputs_of(op)[0]
    return output


def weight_of(op: OpDesc) -> str:
    """Return the name of a layer's weight; empty for other ops."""
    slot = next((types[op.type] for types in LAYERS.values() if op.type in types), "")
    return next((s.arguments[0] for s in op.inputs if s.parameter == slot and s.arguments), "")
