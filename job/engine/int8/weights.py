"""Corrects weight scales of fully connected layers, and stores INT8 weights as bytes."""

from pathlib import Path

import numpy as np

from job.engine.inference.paddle_format import (
    OpDesc,
    ProgramDesc,
    VarType,
    add_variable,
    insert_ops,
    make_op,
    put_in_order,
    read_parameters,
    read_program,
    write_model,
)

INT8_MAX = 127.0
# Weight slot and axis of the output channels.
LAYOUTS = {"fused_conv2d": ("Filter", 0), "conv2d": ("Filter", 0), "fc": ("W", 1)}
SMALLEST = np.float32(1e-12)


def correct_matrix_scales(prefix: Path) -> int:
    """Correct the weight scales of fully connected layers in place.

    Paddle's pass reads the [inputs, outputs] matrix as if it were transposed. It computes the
    scales from unrelated weights, so large weights of a column are clipped at 127.

    Args:
        prefix: prefix of the model that Paddle's passes saved.

    Returns:
        The number of layers whose scales were changed.
    """
    program = read_program(Path(f"{prefix}.pdmodel"))
    parameters = read_parameters(Path(f"{prefix}.pdiparams"), program)
    corrected = 0
    for op in int8_ops(program):
        weight = parameters[weight_name(op)]
        if weight.ndim == 2:
            corrected += correct_scales(op, weight)
    write_model(prefix, program, parameters)
    return corrected


def repack(source: Path, target: Path) -> None:
    """Rewrite an INT8 model with one byte per weight.

    Each weight becomes cast(int8) * scale. When the model is loaded, Paddle's constant folding
    restores an FP32 weight, and oneDNN converts it to the same int8 value. The scores are therefore
    bitwise equal. The int8 stage checks this.

    Args:
        source: prefix of the model, with FP32 weights and corrected scales.
        target: prefix to write to.
    """
    program = read_program(Path(f"{source}.pdmodel"))
    parameters = read_parameters(Path(f"{source}.pdiparams"), program)
    restoring: list[OpDesc] = []
    for op in int8_ops(program):
        # A weight that two ops share is stored once; the first op removes it from parameters.
        if weight_name(op) in parameters:
            restoring += store_as_int8(program, parameters, op)
    insert_ops(program, restoring)
    put_in_order(program)
    write_model(target, program, parameters)


def int8_ops(program: ProgramDesc) -> list[OpDesc]:
    """Return the ops with weights that run in INT8."""
    ops = program.blocks[0].ops
    return [op for op in ops if op.type in LAYOUTS and scale_attribute(op) is not None]


def scale_attribute(op: OpDesc) -> OpDesc.Attr | None:
    """Return the op's per-channel weight scales; None if the op does not run in INT8."""
    return next((a for a in op.attrs if a.name == "Scale_weights" and len(a.floats)), None)


def weight_name(op: OpDesc) -> str:
    """Return the name of the op's weight variable."""
    slot = LAYOUTS[op.type][0]
    return next(i.arguments[0] for i in op.inputs if i.parameter == slot)


def correct_scales(op: OpDesc, weight: np.ndarray) -> bool:
    """Set the scale of each column of a matrix [inputs, outputs] to 127 / its largest magnitude.

    Returns:
        Whether the scales changed.
    """
    scales = (INT8_MAX / np.maximum(np.abs(weight).max(axis=0), SMALLEST)).astype("float32")
    attribute = scale_attribute(op)
    if np.allclose(attribute.floats, scales, rtol=1e-4):
        return False
    del attribute.floats[:]
    attribute.floats.extend(scales.tolist())
    return True


def store_as_int8(
    program: ProgramDesc, parameters: dict[str, np.ndarray], op: OpDesc
) -> list[OpDesc]:
    """Replace a stored FP32 weight by int8 values and scales; return the ops that restore it."""
    name, axis = weight_name(op), LAYOUTS[op.type][1]
    weight = parameters.pop(name)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    scales = np.array(scale_attribute(op).floats, "float32").reshape(shape)
    values = np.clip(np.rint(weight * scales), -128, 127).astype("int8")
    int8, scale, wide = f"{name}.int8", f"{name}.scale", f"{name}.wide"
    parameters[int8], parameters[scale] = values, (1 / scales).astype("float32")
    for variable in program.blocks[0].vars:
        if variable.name == name:
            variable.persistable = False
    add_variable(program, int8, values, persistable=True)
    add_variable(program, scale, parameters[scale], persistable=True)
    add_variable(program, wide, weight, persistable=False)
    types = {"in_dtype": VarType.INT8, "out_dtype": VarType.FP32}
    return [
        make_op("cast", {"X": int8}, {"Out": wide}, types),
        make_op("elementwise_mul", {"X": wide, "Y": scale}, {"Out": name}, {"axis": -1}),
    ]
