"""Rewrites the fake-quantized model for paddle2onnx, with FP32 weights and a clip per scale."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paddle.base.proto import framework_pb2

from job.engine.inference.paddle_format import (
    OpDesc,
    ProgramDesc,
    read_parameters,
    read_program,
    write_model,
)

QUANTIZE, DEQUANTIZE = "quantize_linear", "dequantize_linear"
INT8_MAX = np.float32(127.0)


@dataclass
class Weight:
    """A quantized weight.

    Attributes:
        values: int8, in the layout of the op that reads the weight.
        scale: size of one step, float32 [channels] or [1].
        axis: axis of the channels.
    """

    values: np.ndarray
    scale: np.ndarray
    axis: int


def write_with_clips(fake_quantized: Path, target: Path) -> dict[str, Weight]:
    """Write the model with FP32 weights and a clip in place of each quantize/dequantize pair.

    A clip from -s to s marks the position and the scale of a pair, independently of the names that
    paddle2onnx gives to tensors. Networks do not contain such clips.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        target: prefix to write to.

    Returns:
        The quantized weights by name.
    """
    program = read_program(Path(f"{fake_quantized}.pdmodel"))
    parameters = read_parameters(Path(f"{fake_quantized}.pdiparams"), program)
    weights: dict[str, Weight] = {}
    renamed: dict[str, str] = {}
    kept: list[OpDesc] = []
    for op in program.blocks[0].ops:
        source = argument(op.inputs, "X")
        if op.type == QUANTIZE:
            renamed[argument(op.outputs, "Y")] = source
        elif op.type == DEQUANTIZE and source in parameters:
            weights[source] = weight(op, parameters)
            parameters[source] = restored(weights[source])
            renamed[argument(op.outputs, "Y")] = source
        else:
            rename_inputs(op, renamed)
            kept.append(clip(op, parameters) if op.type == DEQUANTIZE else op)
    write_without_scales(
        target, program, [OpDesc.FromString(bytes_of(op)) for op in kept], parameters
    )
    return weights


def bytes_of(op: OpDesc) -> bytes:
    """Return an op's serialized message, which remains valid after its program is changed."""
    return op.SerializeToString()


def argument(slots: list[OpDesc.Var], name: str) -> str:
    """Return the first variable in a slot; empty for an empty slot."""
    return next((s.arguments[0] for s in slots if s.parameter == name and s.arguments), "")


def number(op: OpDesc, name: str) -> int:
    """Return the value of an integer attribute."""
    return next(item.i for item in op.attrs if item.name == name)


def weight(op: OpDesc, parameters: dict[str, np.ndarray]) -> Weight:
    """Return the quantized weight that a dequantize op reads."""
    values = parameters[argument(op.inputs, "X")].astype("int8")
    scale = parameters[argument(op.inputs, "Scale")].reshape(-1) / INT8_MAX
    return Weight(values, scale.astype("float32"), max(0, number(op, "quant_axis")))


def restored(weight: Weight) -> np.ndarray:
    """Return a weight's FP32 values, in the shape of ``weight.values``."""
    shape = [-1 if axis == weight.axis else 1 for axis in range(weight.values.ndim)]
    return weight.values.astype("float32") * weight.scale.reshape(shape)


def rename_inputs(op: OpDesc, renamed: dict[str, str]) -> None:
    """Rename an op's inputs by ``renamed``."""
    for slot in op.inputs:
        slot.arguments[:] = [renamed.get(name, name) for name in slot.arguments]


def clip(op: OpDesc, parameters: dict[str, np.ndarray]) -> OpDesc:
    """Return the clip that replaces a pair with the dequantize op ``op``."""
    scale = float(parameters[argument(op.inputs, "Scale")].ravel()[0])
    made = OpDesc(type="clip")
    made.inputs.add(parameter="X").arguments.append(argument(op.inputs, "X"))
    made.outputs.add(parameter="Out").arguments.append(argument(op.outputs, "Y"))
    for name, value in (("min", -scale), ("max", scale)):
        made.attrs.add(name=name, type=framework_pb2.FLOAT, f=value)
    return made


def write_without_scales(
    target: Path, program: ProgramDesc, ops: list[OpDesc], parameters: dict[str, np.ndarray]
) -> None:
    """Write a program with only ``ops`` and the variables that they use."""
    block = program.blocks[0]
    del block.ops[:]
    block.ops.extend(ops)
    named = {name for op in ops for slot in (*op.inputs, *op.outputs) for name in slot.arguments}
    variables = [type(v).FromString(v.SerializeToString()) for v in block.vars if v.name in named]
    del block.vars[:]
    block.vars.extend(variables)
    for variable in variables:
        if variable.name in parameters:
            variable.type.dense_tensor.tensor.data_type = framework_pb2.VarType.FP32
    write_model(target, program, {name: v for name, v in parameters.items() if name in named})
