"""Reads and writes Paddle's legacy files, ``.pdmodel`` and ``.pdiparams``.

Paddle's Python API drops the attributes that Paddle's INT8 passes add to ops, so this module parses
the files itself. A ``.pdmodel`` is a ``ProgramDesc`` message
(paddle/fluid/framework/framework.proto). A ``.pdiparams`` contains the persistable variables in the
order of their names. Each variable consists of: version (uint32), level-of-detail count (uint64),
version (uint32), length (int32) and bytes of a ``TensorDesc`` message, raw data.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from paddle.base.proto import framework_pb2

from job.errors import QuantizationError

ProgramDesc, OpDesc = framework_pb2.ProgramDesc, framework_pb2.OpDesc
VarType = framework_pb2.VarType
DTYPES = {
    VarType.FP32: np.dtype("<f4"),
    VarType.INT8: np.dtype("i1"),
    VarType.UINT8: np.dtype("u1"),
    VarType.INT32: np.dtype("<i4"),
    VarType.INT64: np.dtype("<i8"),
    VarType.INT16: np.dtype("<i2"),
    VarType.BOOL: np.dtype("?"),
    VarType.FP16: np.dtype("<f2"),
    VarType.FP64: np.dtype("<f8"),
    VarType.COMPLEX64: np.dtype("<c8"),
    VarType.COMPLEX128: np.dtype("<c16"),
}
DTYPE_IDS = {dtype: number for number, dtype in DTYPES.items()}
NOT_STORED = ("feed", "fetch")
# Attribute with the Python call stack that created an op.
CALL_STACK = "op_callstack"


def read_program(path: Path) -> ProgramDesc:
    """Read a ``.pdmodel`` file.

    Raises:
        OSError: the file cannot be read.
        DecodeError: the file is not a ``ProgramDesc`` message.
    """
    program = ProgramDesc()
    program.ParseFromString(path.read_bytes())
    return program


def persistable_names(program: ProgramDesc) -> list[str]:
    """Return the names of the variables in a program's ``.pdiparams``, in the file's order."""
    variables = program.blocks[0].vars
    return sorted(v.name for v in variables if v.persistable and v.name not in NOT_STORED)


def read_parameters(path: Path, program: ProgramDesc) -> dict[str, np.ndarray]:
    """Read a ``.pdiparams`` file.

    Args:
        path: the file.
        program: the program whose variables the file contains.

    Returns:
        The arrays by variable name.

    Raises:
        OSError: the file cannot be read.
        struct.error: the file is shorter than expected.
        ValueError: the file is shorter than expected.
        QuantizationError: a variable has an unsupported type, or the file is longer than expected.
    """
    content = path.read_bytes()
    values, offset = {}, 0
    for name in persistable_names(program):
        _, levels, _, length = struct.unpack_from("<IQIi", content, offset)
        offset += struct.calcsize("<IQIi")
        tensor = VarType.TensorDesc()
        tensor.ParseFromString(content[offset : offset + length])
        offset += length
        dtype = DTYPES.get(tensor.data_type)
        if levels or dtype is None:
            raise QuantizationError(
                f"{path}: {name} has data type {tensor.data_type} and {levels} levels of detail, "
                f"expected a type of {sorted(DTYPES)} and no levels"
            )
        count = int(np.prod(tensor.dims))
        values[name] = np.frombuffer(content, dtype, count, offset).reshape(tuple(tensor.dims))
        offset += count * dtype.itemsize
    if offset != len(content):
        raise QuantizationError(
            f"{path}: the file has {len(content)} bytes, but its program's variables need {offset}"
        )
    return values


def chunks(values: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """Yield the content of a ``.pdiparams`` file."""
    for name in sorted(values):
        # np.ascontiguousarray would give a single number an axis.
        value = np.asarray(values[name], order="C")
        tensor = VarType.TensorDesc(data_type=DTYPE_IDS[value.dtype], dims=value.shape)
        description = tensor.SerializeToString()
        yield struct.pack("<IQIi", 0, 0, 0, len(description))
        yield description
        yield value.tobytes()


def write_model(prefix: Path, program: ProgramDesc, parameters: Mapping[str, np.ndarray]) -> None:
    """Write ``prefix``.pdmodel and ``prefix``.pdiparams."""
    Path(f"{prefix}.pdmodel").write_bytes(program.SerializeToString())
    with Path(f"{prefix}.pdiparams").open("wb") as file:
        file.writelines(chunks(parameters))


def put_in_order(program: ProgramDesc) -> None:
    """Sort ops and variables by the graph only, so that equal models are saved as equal files.

    The order that PaddleSlim and Paddle's passes produce differs from process to process. This
    function sorts each op after the ops that it depends on, depth first. Therefore a weight is
    dequantized directly before its use. Call stacks are removed, because they contain paths of the
    machine.
    """
    block = program.blocks[0]
    ops = [OpDesc.FromString(op.SerializeToString()) for op in block.ops]
    for op in ops:
        attributes = [attr for attr in op.attrs if attr.name != CALL_STACK]
        del op.attrs[:]
        op.attrs.extend(attributes)
    needs = dependencies(ops)
    ranks = _ranks(ops, needs)
    needed = set().union(*needs)
    ordered: dict[int, None] = {i: None for i, op in enumerate(ops) if op.type == "feed"}
    # The last entry is processed first, so the dependency with the longest path is processed first.
    waiting = sorted((i for i in range(len(ops)) if i not in needed), key=ranks.__getitem__)
    while waiting:
        missing = [i for i in needs[waiting[-1]] if i not in ordered]
        waiting += sorted(missing, key=ranks.__getitem__)
        if not missing:
            ordered[waiting.pop()] = None
    variables = sorted(block.vars, key=lambda variable: variable.name)
    variables = [type(v).FromString(v.SerializeToString()) for v in variables]
    del block.ops[:], block.vars[:]
    block.ops.extend(ops[i] for i in ordered)
    block.vars.extend(variables)


def dependencies(ops: Sequence[OpDesc]) -> list[set[int]]:
    """Return, for each op, the indices of the earlier ops that must run before it.

    These ops write a variable that the op reads or writes, or read a variable that it writes. The
    latter matters because some ops work in place.
    """
    needs: list[set[int]] = []
    writer: dict[str, int] = {}
    readers: dict[str, set[int]] = {}
    for index, op in enumerate(ops):
        reads, writes = ([a for slot in s for a in slot.arguments] for s in (op.inputs, op.outputs))
        before = {writer[name] for name in (*reads, *writes) if name in writer}
        for name in reads:
            readers.setdefault(name, set()).add(index)
        for name in writes:
            before |= readers.pop(name, set())
            writer[name] = index
        needs.append(before - {index})
    return needs


def _ranks(ops: Sequence[OpDesc], needs: Sequence[set[int]]) -> list[tuple[int, bytes]]:
    """Return sort keys that are equal in all processes: longest path to the op, and its bytes."""
    depths: list[int] = []
    for before in needs:
        depths.append(1 + max((depths[i] for i in before), default=0))
    return [(depth, op.SerializeToString()) for depth, op in zip(depths, ops, strict=True)]


def add_variable(program: ProgramDesc, name: str, like: np.ndarray, *, persistable: bool) -> None:
    """Declare a dense variable with the shape and dtype of the array ``like``."""
    variable = program.blocks[0].vars.add(name=name, persistable=persistable)
    variable.type.type = VarType.DENSE_TENSOR
    variable.type.dense_tensor.tensor.data_type = DTYPE_IDS[like.dtype]
    variable.type.dense_tensor.tensor.dims.extend(like.shape)


def make_op(
    kind: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    attributes: Mapping[str, int],
) -> OpDesc:
    """Return an op with one argument per slot and integer attributes."""
    op = OpDesc(type=kind)
    for slots, arguments in ((op.inputs, inputs), (op.outputs, outputs)):
        for slot, argument in arguments.items():
            slots.add(parameter=slot).arguments.append(argument)
    for name, value in attributes.items():
        op.attrs.add(name=name, type=framework_pb2.INT, i=value)
    return op


def insert_ops(program: ProgramDesc, ops: list[OpDesc]) -> None:
    """Insert ops after the feeds and before all other ops."""
    block = program.blocks[0]
    old = [OpDesc.FromString(op.SerializeToString()) for op in block.ops]
    feeds = [op for op in old if op.type == "feed"]
    rest = [op for op in old if op.type != "feed"]
    del block.ops[:]
    block.ops.extend([*feeds, *ops, *rest])


def attribute(op: OpDesc, name: str) -> object:
    """Return the value of an attribute; None if it is not set.

    Paddle appends the attributes that its passes set. Paddle reads the last of two equal names.
    """
    for item in reversed(op.attrs):
        if item.name == name:
            values = {0: item.i, 1: item.f, 2: item.s, 3: item.ints, 4: item.floats, 6: item.b}
            value = values.get(item.type)
            return list(value) if item.type in (3, 4) else value
    return None


def is_int8(op: OpDesc) -> bool:
    """Return whether an op of the INT8 model computes on 8-bit integers."""
    # Paddle does not mark adds of two activations. It only gives them a scale.
    marked = attribute(op, "mkldnn_data_type") == "int8" or attribute(op, "scale_out") is not None
    return marked and op.type not in ("quantize", "dequantize")


def inputs_of(op: OpDesc) -> list[str]:
    """Return the names of all inputs of an op."""
    return [name for slot in op.inputs for name in slot.arguments]


def outputs_of(op: OpDesc) -> list[str]:
    """Return the names of all outputs of an op."""
    return [name for slot in op.outputs for name in slot.arguments]
