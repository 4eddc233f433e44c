"""Translates a PIR program to ops of the legacy format, without Paddle.

PIR passes axes, shapes and factors as tensors that constant ops make. In the legacy format they are
attributes. Each constant op is translated too, and ops that no output depends on are removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.engine.inference.pir_file import ABSENT, EXPORT_AGAIN, PARAMETER, PirOp, Tensor, read_pir
from job.engine.inference.pir_ops import SIGNATURES, Signature, Slot
from job.errors import DataError

# Attributes that do not change the result.
_IGNORED = {"struct_name", "place", "stop_gradient", "persistable", "op_callstack", "op_role"}
_UNKNOWN = -1


@dataclass(frozen=True)
class LegacyOp:
    """An op of the legacy format.

    Attributes:
        kind: its type.
        inputs: slot -> names of variables.
        outputs: slot -> names of variables.
        attributes: values of the types that the PIR program contains.
    """

    kind: str
    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, Sequence[str]]
    attributes: Mapping[str, Any]


@dataclass
class LegacyGraph:
    """A translated program.

    Attributes:
        images: names of the inputs, in order.
        scores: names of the outputs, in order.
        ops: the ops in the order in which they run.
        variables: name -> type.
        parameters: names of the variables that ``.pdiparams`` holds.
    """

    images: list[str] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)
    ops: list[LegacyOp] = field(default_factory=list)
    variables: dict[str, Tensor] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)


def read_graph(path: Path) -> LegacyGraph:
    """Read a ``.json`` file of Paddle 3 and translate it.

    Raises:
        DataError: the file contains no PIR program, or ops that cannot be translated. The message
            names all of them.
    """
    ops = read_pir(path)
    unsupported = sorted({op.kind for op in ops if not _is_supported(op)})
    if unsupported:
        raise DataError(
            f"{path}: the program contains ops that cannot be translated to the format that "
            f"INT8 quantization needs: {', '.join(unsupported)}",
            EXPORT_AGAIN,
        )
    try:
        return _Translation(ops).graph
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the PIR program is damaged: {type(error).__name__}: {error}", EXPORT_AGAIN
        ) from error
    except _Unsupported as error:
        raise DataError(f"{path}: {error}", EXPORT_AGAIN) from error


class _Unsupported(Exception):
    """An op is used in a way that the legacy format cannot express."""


def _is_supported(op: PirOp) -> bool:
    dialect, _, name = op.kind.partition(".")
    if op.has_blocks:
        return False
    return op.kind in _SPECIAL or (dialect == "pd_op" and name in SIGNATURES)


class _Translation:
    """Translates op by op."""

    def __init__(self, ops: Sequence[PirOp]) -> None:
        self.graph = LegacyGraph()
        # Number of a PIR value -> names of its tensors, and its content if it is constant.
        self.names: dict[int, tuple[str, ...]] = {ABSENT: ()}
        self.constants: dict[str, list[Any]] = {}
        # Name of a one-dimensional tensor -> the names of the numbers that it consists of.
        self.parts: dict[str, tuple[str, ...]] = {}
        self.taken = {
            str(op.attributes["name"]) for op in ops if op.kind in (PARAMETER, "pd_op.data")
        }
        fetched: dict[int, str] = {}
        for op in ops:
            if op.kind == "pd_op.fetch":
                (fetched[op.attributes["col"]],) = self.names[op.inputs[0]]
            elif op.kind in _SPECIAL:
                _SPECIAL[op.kind](self, op)
            else:
                self._mapped(op, SIGNATURES[op.kind.partition(".")[2]])
        self.graph.scores = [fetched[column] for column in sorted(fetched)]
        self._remove_unused()

    def _remove_unused(self) -> None:
        used = {*self.graph.scores}
        written: set[str] = set()
        kept = []
        for op in reversed(self.graph.ops):
            outputs = {name for names in op.outputs.values() for name in names}
            if used & outputs:
                kept.append(op)
                used.update(name for names in op.inputs.values() for name in names)
                written |= outputs
        self.graph.ops = kept[::-1]
        declared = {*used, *written, *self.graph.images, *self.graph.parameters}
        self.graph.variables = {n: t for n, t in self.graph.variables.items() if n in declared}

    def _declare(self, op: PirOp) -> None:
        """Give the outputs of an op names and declare them."""
        # Reports name ops by their outputs.
        kind = op.kind.rpartition(".")[2].rstrip("_")
        for value in op.outputs:
            names = []
            for index, tensor in enumerate(value.tensors):
                suffix = f"_{index}" if value.is_list else ""
                name = self._new_name(f"pir_{kind}_{value.number}{suffix}")
                self.graph.variables[name] = tensor
                names.append(name)
            self.names[value.number] = tuple(names)

    def _new_name(self, wanted: str) -> str:
        while wanted in self.taken:
            wanted += "_"
        self.taken.add(wanted)
        return wanted

    def _add(
        self,
        kind: str,
        inputs: Mapping[str, Sequence[str]],
        outputs: Mapping[str, Sequence[str]],
        **attributes: Any,
    ) -> None:
        self.graph.ops.append(LegacyOp(kind, inputs, outputs, attributes))

    def _mapped(self, op: PirOp, signature: Signature) -> None:
        """Translate an op by the table."""
        self._declare(op)
        inputs: dict[str, Sequence[str]] = {}
        attributes: dict[str, Any] = {}
        for slot, number in zip(signature.inputs, op.inputs, strict=True):
            self._input(op, slot, self.names[number], inputs, attributes)
        outputs: dict[str, Sequence[str]] = {}
        for slot, value in zip(signature.outputs, op.outputs, strict=True):
            names = self.names[value.number]
            if slot.overwrites:
                names = tuple(inputs[slot.overwrites])
            if names and (slot.tensor or slot.tensors):
                outputs[slot.tensor or slot.tensors] = names
        for name, content in op.attributes.items():
            legacy = signature.renamed.get(name, name)
            if legacy and name not in _IGNORED:
                attributes[legacy] = content
        self._adjust(op, signature.kind, inputs, attributes)
        self._add(signature.kind, inputs, outputs, **attributes)
        if op.kind == "pd_op.stack" and attributes["axis"] == 0:
            self.parts[outputs["Y"][0]] = tuple(inputs["X"])

    def _input(
        self,
        op: PirOp,
        slot: Slot,
        names: tuple[str, ...],
        inputs: dict[str, Sequence[str]],
        attributes: dict[str, Any],
    ) -> None:
        """Write one input as an attribute or into a slot."""
        if not names or slot == Slot():
            return
        parts = self.parts.get(names[0], names) if len(names) == 1 else names
        known = [self.constants.get(name) for name in parts]
        is_list = bool(slot.tensors) and (len(names) > 1 or names[0] in self.parts)
        if slot.attribute and None not in known:
            attributes[slot.attribute] = [number for each in known if each for number in each]
        elif slot.attribute and is_list:
            # Paddle reads the list only.
            attributes[slot.attribute] = [each[0] if each else _UNKNOWN for each in known]
            inputs[slot.tensors] = parts
        elif slot.tensor:
            inputs[slot.tensor] = names
        elif slot.tensors and not slot.attribute:
            inputs[slot.tensors] = names
        else:
            raise _Unsupported(
                f"{op.kind}: expected a constant for {slot.attribute}, found a value that is "
                "computed when the model runs"
            )

    def _adjust(
        self,
        op: PirOp,
        kind: str,
        inputs: dict[str, Sequence[str]],
        attributes: dict[str, Any],
    ) -> None:
        """Apply the differences that the table cannot express."""
        if kind.startswith("reduce_"):
            attributes["reduce_all"] = not attributes["dim"]
        elif kind == "tril_triu":
            attributes["lower"] = True
        elif kind == "strided_slice":
            # Without this attribute Paddle ends with signal 11.
            attributes["infer_flags"] = [1] * len(attributes["axes"])
        elif kind == "batch_norm" and not {"Scale", "Bias"} <= inputs.keys():
            raise _Unsupported(f"{op.kind}: expected a scale and a bias, found neither or only one")
        elif kind == "reshape2" and "ShapeTensor" in inputs:
            shape = attributes["shape"]
            if shape.count(_UNKNOWN) == 1:
                # Paddle infers one size. An attribute lets more ops run in INT8 than a tensor.
                del inputs["ShapeTensor"]

    def _parameter(self, op: PirOp) -> None:
        name = str(op.attributes["name"])
        (value,) = op.outputs
        self.names[value.number] = (name,)
        self.graph.variables[name] = value.tensors[0]
        self.graph.parameters.add(name)

    def _data(self, op: PirOp) -> None:
        name = str(op.attributes["name"])
        (value,) = op.outputs
        self.names[value.number] = (name,)
        self.graph.variables[name] = value.tensors[0]
        self.graph.images.append(name)

    def _combine(self, op: PirOp) -> None:
        (value,) = op.outputs
        self.names[value.number] = tuple(
            name for number in op.inputs for name in self.names[number]
        )

    def _split_list(self, op: PirOp) -> None:
        for value, name in zip(op.outputs, self.names[op.inputs[0]], strict=True):
            self.names[value.number] = (name,)

    def _full(self, op: PirOp) -> None:
        self._declare(op)
        (value,) = op.outputs
        (name,) = self.names[value.number]
        shape, number = op.attributes["shape"], op.attributes["value"]
        number = _as_type(number, op.attributes["dtype"])
        if shape in ([], [1]):
            self.constants[name] = [number]
        self._fill(name, shape, op.attributes["dtype"], number)

    def _fill(self, name: str, shape: Sequence[int], data_type: str, number: float) -> None:
        self._add(
            "fill_constant",
            {},
            {"Out": [name]},
            shape=shape,
            dtype=data_type,
            value=float(number),
            # Paddle reads the text, because a 32-bit value loses digits of integers.
            str_value=str(number),
        )

    def _arange(self, op: PirOp) -> None:
        """The legacy op needs inputs of its output's type."""
        self._declare(op)
        (name,) = self.names[op.outputs[0].number]
        data_type = op.attributes["dtype"]
        inputs = {}
        for slot, number in zip(("Start", "End", "Step"), op.inputs, strict=True):
            (given,) = self.names[number]
            if given not in self.constants:
                raise _Unsupported(f"{op.kind}: expected constants, found a computed {slot}")
            own = self._new_name(f"{name}_{slot}")
            self.graph.variables[own] = Tensor(self.graph.variables[name].data_type, (1,))
            self._fill(own, [1], data_type, _as_type(self.constants[given][0], data_type))
            inputs[slot] = [own]
        self._add("range", inputs, {"Out": [name]})

    def _full_int_array(self, op: PirOp) -> None:
        self._declare(op)
        (value,) = op.outputs
        (name,) = self.names[value.number]
        numbers = op.attributes["value"]
        self.constants[name] = numbers
        self._add(
            "assign_value",
            {},
            {"Out": [name]},
            shape=[len(numbers)],
            dtype=op.attributes["dtype"],
            values=numbers,
        )

    def _assign_value(self, op: PirOp) -> None:
        self._declare(op)
        (value,) = op.outputs
        (name,) = self.names[value.number]
        wanted = {key: op.attributes[key] for key in ("shape", "dtype", "values")}
        if len(wanted["shape"]) <= 1 and wanted["dtype"] in ("int32", "int64"):
            self.constants[name] = [int(number) for number in wanted["values"]]
        self._add("assign_value", {}, {"Out": [name]}, **wanted)

    def _cast(self, op: PirOp) -> None:
        self._declare(op)
        (source,) = self.names[op.inputs[0]]
        names = self.names[op.outputs[0].number]
        before, after = self.graph.variables[source], self.graph.variables[names[0]]
        if source in self.constants and after.data_type.startswith("i"):
            self.constants[names[0]] = [int(number) for number in self.constants[source]]
        self._add(
            "cast",
            {"X": [source]},
            {"Out": names},
            in_dtype=before.data_type,
            out_dtype=after.data_type,
        )

    def _shape(self, op: PirOp) -> None:
        """The legacy op returns int32 only, so a cast follows."""
        self._declare(op)
        (source,) = self.names[op.inputs[0]]
        (name,) = self.names[op.outputs[0].number]
        after = self.graph.variables[name]
        narrow = self._new_name(f"{name}_i32")
        self.graph.variables[narrow] = Tensor("i32", after.shape)
        self._add("shape", {"Input": [source]}, {"Out": [narrow]})
        self._add(
            "cast", {"X": [narrow]}, {"Out": [name]}, in_dtype="i32", out_dtype=after.data_type
        )


def _as_type(number: float, data_type: str) -> float:
    whole = data_type.startswith(("int", "uint", "bool"))
    return int(number) if whole else float(number)


_SPECIAL = {
    PARAMETER: _Translation._parameter,
    "builtin.combine": _Translation._combine,
    "builtin.split": _Translation._split_list,
    "pd_op.data": _Translation._data,
    "pd_op.fetch": None,
    "pd_op.full": _Translation._full,
    "pd_op.full_int_array": _Translation._full_int_array,
    "pd_op.arange": _Translation._arange,
    "pd_op.assign_value_": _Translation._assign_value,
    "pd_op.cast": _Translation._cast,
    "pd_op.shape": _Translation._shape,
    "pd_op.shape64": _Translation._shape,
}
