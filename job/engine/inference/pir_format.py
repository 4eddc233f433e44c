"""Reads a model that Paddle 3 saved as a legacy program."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paddle.base import core
from paddle.base.framework import OpProtoHolder
from paddle.base.proto import framework_pb2

from job.engine.inference.paddle_format import CALL_STACK, OpDesc, ProgramDesc, VarType
from job.engine.inference.pir_file import EXPORT_AGAIN, SUFFIX, Tensor, program_file
from job.engine.inference.pir_graph import LegacyGraph, LegacyOp, read_graph
from job.errors import DataError

# PIR writes types of tensors as in the first column, and types in attributes as in the second.
_TYPES = (
    ("bool", "bool", VarType.BOOL),
    ("f16", "float16", VarType.FP16),
    ("bf16", "bfloat16", VarType.BF16),
    ("f32", "float32", VarType.FP32),
    ("f64", "float64", VarType.FP64),
    ("i8", "int8", VarType.INT8),
    ("ui8", "uint8", VarType.UINT8),
    ("i16", "int16", VarType.INT16),
    ("i32", "int32", VarType.INT32),
    ("i64", "int64", VarType.INT64),
)
_TYPE_IDS = {name: number for short, long, number in _TYPES for name in (short, long)}
_UNDEFINED = "Undefined"
# Type of a legacy attribute -> field of its message, and the type of one element.
_FIELDS = {
    framework_pb2.INT: ("i", int),
    framework_pb2.LONG: ("l", int),
    framework_pb2.FLOAT: ("f", float),
    framework_pb2.FLOAT64: ("float64", float),
    framework_pb2.STRING: ("s", str),
    framework_pb2.BOOLEAN: ("b", bool),
    framework_pb2.INTS: ("ints", int),
    framework_pb2.LONGS: ("longs", int),
    framework_pb2.FLOATS: ("floats", float),
    framework_pb2.FLOAT64S: ("float64s", float),
    framework_pb2.BOOLEANS: ("bools", bool),
    framework_pb2.STRINGS: ("strings", str),
}
_FORWARD = 0
_LISTS = ("ints", "longs", "floats", "float64s", "bools", "strings")


@contextmanager
def legacy_model(prefix: Path) -> Iterator[Path]:
    """Yield the prefix of a saved model in the legacy format.

    Args:
        prefix: path without ``.pdmodel`` or ``.json``, and without ``.pdiparams``.

    Yields:
        ``prefix`` itself, or the prefix of a translated model, which exists until the block ends.

    Raises:
        DataError: a file is missing, or contains a program that cannot be translated.
    """
    program, parameters = program_file(prefix), Path(f"{prefix}.pdiparams")
    for path in (program, parameters):
        if not path.is_file():
            raise DataError(f"{path} is missing", "Check /model/inference_model.")
    if program.suffix != SUFFIX:
        yield prefix
        return
    with tempfile.TemporaryDirectory(prefix="job-pir-") as folder:
        translated = Path(folder) / "model"
        Path(f"{translated}.pdmodel").write_bytes(read_pir_program(program).SerializeToString())
        Path(f"{translated}.pdiparams").symlink_to(parameters.absolute())
        yield translated


def read_pir_program(path: Path) -> ProgramDesc:
    """Read a ``.json`` file of Paddle 3 as a legacy program.

    The program has the parameters of the ``.pdiparams`` file next to it, under the same names.

    Raises:
        DataError: the file contains no PIR program, or a program that cannot be translated.
    """
    graph = read_graph(path)
    # A new program contains the version of the installed Paddle.
    program = ProgramDesc.FromString(core.ProgramDesc().serialize_to_string())
    block = program.blocks[0]
    for name, kind in (("feed", VarType.FEED_MINIBATCH), ("fetch", VarType.FETCH_LIST)):
        block.vars.add(name=name, persistable=True).type.type = kind
    for name, tensor in graph.variables.items():
        _declare(block, name, tensor, persistable=name in graph.parameters)
    _add_ends(graph)
    try:
        block.ops.extend(_op(op) for op in graph.ops)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}", EXPORT_AGAIN) from error
    finished = core.ProgramDesc(program.SerializeToString())
    core.save_op_version_info(finished)
    return ProgramDesc.FromString(finished.serialize_to_string())


def _declare(block: Any, name: str, tensor: Tensor, *, persistable: bool) -> None:
    variable = block.vars.add(name=name, persistable=persistable, is_parameter=persistable)
    variable.type.type = VarType.DENSE_TENSOR
    variable.type.dense_tensor.tensor.data_type = _TYPE_IDS[tensor.data_type]
    variable.type.dense_tensor.tensor.dims.extend(tensor.shape)


def _add_ends(graph: LegacyGraph) -> None:
    """Add the ops for inputs and outputs."""
    feeds = [
        LegacyOp("feed", {"X": ["feed"]}, {"Out": [name]}, {"col": column})
        for column, name in enumerate(graph.images)
    ]
    fetches = [
        LegacyOp("fetch", {"X": [name]}, {"Out": ["fetch"]}, {"col": column})
        for column, name in enumerate(graph.scores)
    ]
    graph.ops[:] = [*feeds, *graph.ops, *fetches]


def _op(op: LegacyOp) -> OpDesc:
    described = OpDesc(type=op.kind)
    for slots, variables in ((described.inputs, op.inputs), (described.outputs, op.outputs)):
        for slot, names in variables.items():
            slots.add(parameter=slot).arguments.extend(names)
    if op.kind in ("feed", "fetch"):
        _set_attribute(described, "col", framework_pb2.INT, op.attributes["col"])
        return described
    proto = OpProtoHolder.instance().get_op_proto(op.kind)
    types = {attribute.name: attribute.type for attribute in proto.attrs}
    if unknown := sorted(op.attributes.keys() - types.keys()):
        raise ValueError(f"the installed Paddle's op {op.kind} has no attribute {unknown[0]}")
    # Legacy programs contain every attribute, and readers such as PaddleSlim rely on it.
    defaults = core.get_op_attrs_default_value(op.kind.encode())
    known = {name: value for name, value in defaults.items() if name in types}
    for name, value in {**known, "op_role": _FORWARD, **op.attributes}.items():
        if name != CALL_STACK:
            _set_attribute(described, name, types[name], value)
    return described


def _set_attribute(op: OpDesc, name: str, kind: int, value: Any) -> None:
    """Write an attribute as the type that the legacy op expects."""
    attribute = op.attrs.add(name=name, type=kind)
    if kind == framework_pb2.SCALARS:
        attribute.scalars.extend(_scalar(number) for number in value)
        return
    target, convert = _FIELDS[kind]
    if target in _LISTS:
        getattr(attribute, target).extend(convert(each) for each in _as_list(value))
        return
    if isinstance(value, list):
        (value,) = value
    if isinstance(value, str) and target in ("i", "l"):
        value = -1 if value.startswith(_UNDEFINED) else _TYPE_IDS[value]
    setattr(attribute, target, convert(value))


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _scalar(number: Any) -> framework_pb2.Scalar:
    scalar = framework_pb2.Scalar
    if isinstance(number, bool):
        return scalar(type=scalar.BOOLEAN, b=number)
    if isinstance(number, int):
        return scalar(type=scalar.LONG, i=number)
    return scalar(type=scalar.FLOAT64, r=number)
