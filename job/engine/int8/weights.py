"""Restores the trained weights of fully connected layers, and stores INT8 weights as bytes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.engine.inference.paddle_format import (
    OpDesc,
    ProgramDesc,
    VarType,
    add_variable,
    attribute,
    insert_ops,
    is_int8,
    make_op,
    put_in_order,
    read_parameters,
    read_program,
    write_model,
)
from job.engine.quantize.fake_quantize import DEQUANTIZE

INT8_MAX = 127.0
# Dimensions of a fully connected layer's weight.
MATRIX = 2
# Weight slot and axis of the output channels.
LAYOUTS = {"fused_conv2d": ("Filter", 0), "conv2d": ("Filter", 0), "fc": ("W", 1)}
SMALLEST = np.float32(1e-12)


@dataclass(frozen=True)
class TrainedMatrix:
    """A matrix of the fake-quantized model.

    Attributes:
        steps: float32 [inputs, outputs], the quantized values, -127 to 127.
        scales: float32 [outputs], the largest magnitude of each column; at least ``SMALLEST``.
    """

    steps: np.ndarray
    scales: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The dequantized weights."""
        return self.steps * (self.scales / INT8_MAX)

    def equals(self, stored: np.ndarray) -> bool:
        """Whether ``stored`` are these weights, dequantized along the correct or the wrong axis."""
        if stored.shape != self.steps.shape:
            return False
        bound = 1e-5 * float(self.scales.max())
        right = np.allclose(stored, self.values, atol=bound)
        rows = (self.scales / INT8_MAX)[:, None]
        return right or (_is_square(stored) and np.allclose(stored, self.steps * rows, atol=bound))


def _is_square(matrix: np.ndarray) -> bool:
    return matrix.ndim == MATRIX and matrix.shape[0] == matrix.shape[1]


def restore_matrices(prefix: Path, fake_quantized: Path, *, vnni: bool) -> int:
    """Set weights and scales of fully connected layers to the trained values, in place.

    Paddle's passes read the matrix [inputs, outputs] as if it were transposed. They compute the
    scales from unrelated weights, so large weights of a column are clipped at 127. If the matrix
    is square, they also restore its weights along the wrong axis.

    Args:
        prefix: prefix of the model that Paddle's passes saved.
        fake_quantized: prefix of the fake-quantized model.
        vnni: whether the CPU has AVX512_VNNI. Without it, oneDNN adds two products in 16 bits, and
            the sum can saturate. To avoid saturation, weights then use half of their steps. For
            convolutions, oneDNN avoids saturation.

    Returns:
        The number of layers whose weights or scales were changed.
    """
    steps = INT8_MAX if vnni else INT8_MAX / 2
    program = read_program(Path(f"{prefix}.pdmodel"))
    parameters = read_parameters(Path(f"{prefix}.pdiparams"), program)
    # Other values mean that another pass folded an op into the weight: keep them.
    trained = {
        name: weight
        for name, weight in trained_matrices(fake_quantized).items()
        if name in parameters and weight.equals(parameters[name])
    }
    changed = set()
    # Layers that stay in FP32 read the same variables, so all matrices are restored.
    for name, weight in trained.items():
        if not np.allclose(parameters[name], weight.values, atol=1e-5 * weight.scales.max()):
            changed.add(name)
        parameters[name] = weight.values.astype("float32")
    for op in int8_ops(program):
        name = weight_name(op)
        if parameters[name].ndim != MATRIX:
            continue
        columns = np.abs(parameters[name]).max(axis=0)
        scales = trained[name].scales if name in trained else np.maximum(columns, SMALLEST)
        stored = scale_attribute(op).floats
        if not np.allclose(stored, INT8_MAX / scales, rtol=1e-4):
            changed.add(name)
        del stored[:]
        stored.extend((steps / scales).astype("float32").tolist())
    write_model(prefix, program, parameters)
    return len(changed)


def trained_matrices(fake_quantized: Path) -> dict[str, TrainedMatrix]:
    """Return the quantized matrices [inputs, outputs] of a fake-quantized model by name."""
    program = read_program(Path(f"{fake_quantized}.pdmodel"))
    parameters = read_parameters(Path(f"{fake_quantized}.pdiparams"), program)
    matrices = {}
    for op in program.blocks[0].ops:
        slots = {slot.parameter: slot.arguments[0] for slot in op.inputs if slot.arguments}
        if op.type != DEQUANTIZE or slots["X"] not in parameters:
            continue
        steps = parameters[slots["X"]].astype("float32")
        if steps.ndim == MATRIX and attribute(op, "quant_axis") == 1:
            scales = np.maximum(parameters[slots["Scale"]].astype("float32"), SMALLEST)
            matrices[slots["X"]] = TrainedMatrix(steps, scales.reshape(-1))
    return matrices


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
    # Convolutions that stay in FP32 have the attribute as well, with one scale of 1.
    return [op for op in ops if op.type in LAYOUTS and is_int8(op)]


def scale_attribute(op: OpDesc) -> OpDesc.Attr:
    """Return the per-channel weight scales of an op that runs in INT8."""
    return next(a for a in op.attrs if a.name == "Scale_weights")


def weight_name(op: OpDesc) -> str:
    """Return the name of the op's weight variable."""
    slot = LAYOUTS[op.type][0]
    return next(i.arguments[0] for i in op.inputs if i.parameter == slot)


def store_as_int8(
    program: ProgramDesc, parameters: dict[str, np.ndarray], op: OpDesc
) -> list[OpDesc]:
    """Replace a stored FP32 weight by int8 values and scales; return the ops that restore it."""
    name, axis = weight_name(op), LAYOUTS[op.type][1]
    weight = parameters.pop(name)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    scales = np.array(scale_attribute(op).floats, "float32").reshape(shape)
    # The scale of a channel whose weights are all 0 is infinite.
    steps = weight * np.where(np.isfinite(scales), scales, 0)
    values = np.clip(np.rint(steps), -128, 127).astype("int8")
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
