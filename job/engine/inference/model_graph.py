"""The ops of a saved model as plain data. The module does not import Paddle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from job.engine.inference.pir_graph import LegacyGraph

# Number of a type of an attribute in Paddle's framework.proto -> field that holds the value.
_FIELDS = {0: "i", 1: "f", 2: "s", 3: "ints", 4: "floats", 5: "strings", 6: "b", 9: "l"}
_LISTS = ("ints", "floats", "strings")
_ENDS = ("feed", "fetch")


@dataclass(frozen=True, eq=False)
class GraphOp:
    """An op.

    Attributes:
        type: its type in the legacy format.
        inputs: slot -> names of variables.
        outputs: slot -> names of variables.
        attributes: name -> value; attributes of other types than numbers, texts and lists are
            missing.
        index: its place among all ops of the program, feed and fetch ops included.
    """

    type: str
    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, Sequence[str]]
    attributes: Mapping[str, Any]
    index: int

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of all inputs."""
        return tuple(name for names in self.inputs.values() for name in names)

    @property
    def writes(self) -> tuple[str, ...]:
        """The names of all outputs."""
        return tuple(name for names in self.outputs.values() for name in names)


@dataclass(frozen=True, eq=False)
class ModelGraph:
    """A model.

    Attributes:
        ops: the ops in the order in which they run, without feed and fetch ops.
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order.
        shapes: shape of each variable; -1 stands for any size.
        weights: names of the variables that ``.pdiparams`` contains.
    """

    ops: Sequence[GraphOp]
    inputs: Sequence[str]
    outputs: Sequence[str]
    shapes: Mapping[str, Sequence[int]]
    weights: frozenset[str]

    @cached_property
    def producers(self) -> Mapping[str, GraphOp]:
        """The op that writes each variable; the last one, if there are several."""
        return {name: op for op in self.ops for name in op.writes}


def graph_of_program(
    program: Any, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> ModelGraph:
    """Return the first block of a program.

    Args:
        program: a ``ProgramDesc`` message.
        inputs: names of the inputs; None reads them from the program's feed ops.
        outputs: names of the outputs; None reads them from the program's fetch ops.
    """
    block = program.blocks[0]
    ops = [
        GraphOp(
            op.type,
            {slot.parameter: tuple(slot.arguments) for slot in op.inputs},
            {slot.parameter: tuple(slot.arguments) for slot in op.outputs},
            {item.name: _value(item) for item in op.attrs if item.type in _FIELDS},
            index,
        )
        for index, op in enumerate(block.ops)
    ]
    fed = _ordered(ops, "feed")
    fetched = _ordered(ops, "fetch")
    return ModelGraph(
        ops=[op for op in ops if op.type not in _ENDS],
        inputs=[op.outputs["Out"][0] for op in fed] if inputs is None else inputs,
        outputs=[op.inputs["X"][0] for op in fetched] if outputs is None else outputs,
        shapes={each.name: tuple(each.type.dense_tensor.tensor.dims) for each in block.vars},
        weights=frozenset(v.name for v in block.vars if v.persistable and v.name not in _ENDS),
    )


def graph_of_pir(graph: LegacyGraph) -> ModelGraph:
    """Return a model that Paddle 3 saved."""
    return ModelGraph(
        ops=[
            GraphOp(op.kind, op.inputs, op.outputs, op.attributes, index)
            for index, op in enumerate(graph.ops)
        ],
        inputs=graph.images,
        outputs=graph.scores,
        shapes={name: tensor.shape for name, tensor in graph.variables.items()},
        weights=frozenset(graph.parameters),
    )


def _ordered(ops: Sequence[GraphOp], kind: str) -> list[GraphOp]:
    """Return the feed or fetch ops in the order of the model's inputs or outputs."""
    of_kind = [op for op in ops if op.type == kind]
    return sorted(of_kind, key=lambda op: int(op.attributes.get("col", 0)))


def _value(item: Any) -> Any:
    field = _FIELDS[item.type]
    value = getattr(item, field)
    return list(value) if field in _LISTS else value
