"""A saved Paddle program that can be rewritten: its ops, its variables and their values."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from job.engine.inference.paddle_format import (
    DTYPE_IDS,
    OpDesc,
    ProgramDesc,
    VarType,
    persistable_names,
    read_parameters,
    read_program,
    write_model,
)

QUANTIZE, DEQUANTIZE = "quantize_linear", "dequantize_linear"


class Network:
    """The first block of a program.

    Ops are compared by identity, because two ops can have equal content.

    Args:
        program: the program; it is not changed.
        values: the arrays of its persistable variables.

    Attributes:
        ops: the ops, each behind the ops whose output it reads.
        values: arrays by name of the variable.
    """

    def __init__(self, program: ProgramDesc, values: dict[str, np.ndarray]) -> None:
        self._program = ProgramDesc.FromString(program.SerializeToString())
        block = self._program.blocks[0]
        self.ops: list[OpDesc] = [OpDesc.FromString(op.SerializeToString()) for op in block.ops]
        self._variables = {v.name: v for v in block.vars}
        self.values = dict(values)

    def producer(self, name: str) -> OpDesc | None:
        """Return the op that writes a variable; None for inputs and parameters."""
        return next((op for op in self.ops if name in names(op.outputs)), None)

    def readers(self, name: str) -> list[OpDesc]:
        """Return the ops that read a variable."""
        return [op for op in self.ops if name in names(op.inputs)]

    def remove(self, op: OpDesc) -> None:
        """Remove an op."""
        del self.ops[self.position(op)]

    def move_behind(self, op: OpDesc, other: OpDesc) -> None:
        """Move an op directly behind another op."""
        self.remove(op)
        self.ops.insert(self.position(other) + 1, op)

    def position(self, wanted: OpDesc) -> int:
        """Return the index of an op."""
        return next(index for index, op in enumerate(self.ops) if op is wanted)

    def rename_reads(self, old: str, new: str) -> None:
        """Let all ops that read one variable read another one."""
        for op in self.readers(old):
            for slot in op.inputs:
                slot.arguments[:] = [new if name == old else name for name in slot.arguments]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable; -1 stands for any size."""
        return tuple(self._variables[name].type.dense_tensor.tensor.dims)

    def set_shape(self, name: str, shape: Sequence[int]) -> None:
        """Set the shape of a variable."""
        self._variables[name].type.dense_tensor.tensor.dims[:] = shape

    def store(self, name: str, value: np.ndarray) -> str:
        """Add or replace a parameter; return its name."""
        if name not in self._variables:
            variable = self._program.blocks[0].vars.add(name=name, persistable=True)
            variable.type.type = VarType.DENSE_TENSOR
            self._variables[name] = variable
        tensor = self._variables[name].type.dense_tensor.tensor
        tensor.data_type = DTYPE_IDS[value.dtype]
        tensor.dims[:] = value.shape
        self.values[name] = value
        return name

    def write(self, prefix: Path) -> None:
        """Write ``prefix``.pdmodel and ``prefix``.pdiparams with the variables in use."""
        block = self._program.blocks[0]
        used = {name for op in self.ops for name in (*names(op.inputs), *names(op.outputs))}
        kept = [type(v).FromString(v.SerializeToString()) for v in block.vars if v.name in used]
        del block.ops[:], block.vars[:]
        block.ops.extend(self.ops)
        block.vars.extend(kept)
        stored = persistable_names(self._program)
        write_model(prefix, self._program, {name: self.values[name] for name in stored})


def read_network(prefix: Path) -> Network:
    """Read a saved model."""
    program = read_program(Path(f"{prefix}.pdmodel"))
    return Network(program, read_parameters(Path(f"{prefix}.pdiparams"), program))


def names(slots: Iterable[OpDesc.Var], slot: str | None = None) -> list[str]:
    """Return the variables in one slot of an op; in all slots without ``slot``."""
    return [name for each in slots if slot in (None, each.parameter) for name in each.arguments]


def set_input(op: OpDesc, slot: str, name: str) -> None:
    """Set the one variable in an input slot."""
    for each in op.inputs:
        if each.parameter == slot:
            each.arguments[:] = [name]
            return
    op.inputs.add(parameter=slot, arguments=[name])


def attribute(op: OpDesc, name: str) -> OpDesc.Attr | None:
    """Return an attribute of an op; None if the op has no such attribute."""
    return next((each for each in op.attrs if each.name == name), None)
