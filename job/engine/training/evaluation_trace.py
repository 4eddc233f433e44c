"""Compares a network's trace in evaluation mode with its trace in training mode.

``clone(for_test=True)`` makes an evaluation program from a training program, by an attribute of
ops such as batch norm and dropout. It cannot undo what the code of a network does only in training,
such as stochastic depth. A second trace in evaluation mode has the right ops, but its variables can
have the names of other values of the training program. Scales are stored by these names.
"""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from google.protobuf.message import Message
from paddle.base.proto import framework_pb2
from paddle.static import Program

# Attributes of the use of a program, which do not change its results in evaluation.
OF_MODE = {
    *("is_test", "use_global_stats", "trainable_statistics", "op_callstack", "op_role"),
    *("op_role_var", "op_namescope", "op_device", "with_quant_attr"),
}
# Suffix of values that only the evaluation program has.
ONLY_HERE = "@evaluation"
OpDesc = framework_pb2.OpDesc


def same_ops(one: Program, other: Program) -> bool:
    """Return whether two evaluation programs compute the same in the same order."""
    ops = [[described(op) for op in ops_of(program)] for program in (one, other)]
    return ops[0] == ops[1]


def ops_of(program: Program) -> Sequence[OpDesc]:
    """Return the ops of a program."""
    return parsed(program).blocks[0].ops


def parsed(program: Program) -> framework_pb2.ProgramDesc:
    """Return the message that describes a program."""
    return framework_pb2.ProgramDesc.FromString(program.desc.serialize_to_string())


def described(op: OpDesc) -> tuple[Any, ...]:
    """Return an op's type, slots and attributes, without the attributes in ``OF_MODE``."""
    attributes = sorted((a for a in op.attrs if a.name not in OF_MODE), key=lambda a: a.name)
    return (op.type, *map(serialized, (*op.inputs, *op.outputs, *attributes)))


def serialized(message: Message) -> bytes:
    """Return the bytes of a message, equal for equal messages."""
    return message.SerializeToString(deterministic=True)


def named_like(evaluation: Program, train: Program) -> tuple[Program, Mapping[str, str]]:
    """Rename the values of an evaluation program to the names that they have in training.

    Ops of both programs are matched in order, by their type and their weights. Values of other ops
    get names that the training program does not have.

    Args:
        evaluation: trace in evaluation mode.
        train: trace in training mode.

    Returns:
        The renamed program, and old -> new name.
    """
    description = parsed(evaluation)
    block = description.blocks[0]
    fixed = {v.name for v in block.vars if v.persistable or v.need_check_feed}
    keys = [[key_of(op, fixed) for op in ops] for ops in (block.ops, ops_of(train))]
    matcher = SequenceMatcher(None, *keys, autojunk=False)
    names = {v.name: f"{v.name}{ONLY_HERE}" for v in block.vars if v.name not in fixed}
    for first, second, count in matcher.get_matching_blocks():
        for op, other in zip(
            block.ops[first : first + count], ops_of(train)[second : second + count], strict=True
        ):
            names |= dict(zip(arguments(op.outputs), arguments(other.outputs), strict=True))
    names = {old: new for old, new in names.items() if old not in fixed}
    rename(block, names)
    return Program.parse_from_string(description.SerializeToString()), names


def key_of(op: OpDesc, fixed: set[str]) -> tuple[str, ...]:
    """Return an op's type, its weights and its number of outputs."""
    weights = sorted(name for name in arguments(op.inputs) if name in fixed)
    return (op.type, str(len(arguments(op.outputs))), *weights)


def arguments(slots: Sequence[OpDesc.Var]) -> list[str]:
    """Return the names in all slots."""
    return [name for slot in slots for name in slot.arguments]


def rename(block: framework_pb2.BlockDesc, names: Mapping[str, str]) -> None:
    """Rename variables of a block in place."""
    for variable in block.vars:
        variable.name = names.get(variable.name, variable.name)
    for op in block.ops:
        for slot in (*op.inputs, *op.outputs):
            slot.arguments[:] = [names.get(name, name) for name in slot.arguments]
