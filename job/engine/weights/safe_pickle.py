"""Reads a pickle of arrays in plain containers without running code from it.

Python's unpickler is unsafe, even with restricted globals. A few bytes can make it allocate
gigabytes (for its memo, or for the shape of an array), hash nested tuples for hours, or set
attributes of loaded objects. This module therefore executes the pickle instructions itself. It
accepts only the instructions that paddle.save writes. It creates arrays only from bytes that the
file contains.
"""

import io
import math
import pickletools
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# Booleans, integers and floating-point numbers, in numpy's notation.
_ELEMENTS = re.compile("[biuf](1|2|4|8|16)")
# A network of a thousand arrays needs about 35,000 instructions. Each can use a hundred bytes of
# memory.
_MOST_INSTRUCTIONS = 5_000_000
_LARGEST_SIZE = 1 << 48
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_MOST_DIMENSIONS = 32
_STACK_EMPTY = "an instruction needs more values than the stack holds"


class _Mark:
    """Marks on the stack where the values of an instruction begin."""


_MARK = _Mark()


@dataclass(frozen=True)
class _Name:
    """A global that the file names; nothing is imported for it."""

    module: str
    name: str


@dataclass
class _DType:
    """An array's element type; ``order`` is ``>`` for big-endian."""

    text: str
    order: str = "<"

    def set_state(self, state: Any, _machine: "_Machine") -> None:
        """Read numpy's state of an element type: (version, byte order, ...)."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise UnpicklingError("unknown state of an element type")
        self.order = str(state[1])

    def made(self) -> "np.dtype[Any]":
        """Return the element type as numpy's."""
        dtype = np.dtype(self.text)
        return dtype.newbyteorder(">") if self.order == ">" else dtype


@dataclass
class _Array:
    """An array; ``values`` is None until the file sets its state."""

    values: NDArray[Any] | None = None

    def set_state(self, state: Any, machine: "_Machine") -> None:
        """Read numpy's state of an array: (version, shape, element type, by columns, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnpicklingError("unknown state of an array")
        _, shape, kind, by_columns, content = state
        if isinstance(content, str):
            # Python 2 wrote bytes as text.
            content = machine.latin1(content)
        self.values = _array(shape, kind, content, "F" if by_columns is True else "C")


def _array(shape: Any, kind: Any, content: Any, order: Any) -> NDArray[Any]:
    """Return an array of the given bytes.

    Raises:
        UnpicklingError: an argument has an unexpected type, or the bytes do not fill the shape.
    """
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MOST_DIMENSIONS
        or not all(type(size) is int and 0 <= size < _LARGEST_SIZE for size in shape)
        or not isinstance(kind, _DType)
        or not isinstance(content, bytes)
        or order not in ("C", "F")
    ):
        raise UnpicklingError("unknown state of an array")
    dtype = kind.made()
    if math.prod(shape) * dtype.itemsize != len(content):
        raise UnpicklingError(
            f"an array of {'x'.join(map(str, shape))[:60]} {dtype.name} has {len(content):,} bytes"
        )
    return np.frombuffer(content, dtype).reshape(shape, order=order)


class Foreign(Protocol):
    """What the pickles of another tool contain besides arrays of numpy.

    Attributes:
        names: (module, name) of each additional global.
    """

    names: frozenset[tuple[str, str]]

    def called(self, name: tuple[str, str], arguments: tuple[Any, ...]) -> Any:
        """Return the result of a call of one of ``names``; raise UnpicklingError if invalid."""

    def persistent(self, reference: Any) -> Any:
        """Return the object outside the pickle that ``reference`` names."""


def _called(function: Any, arguments: Any, machine: "_Machine") -> Any:
    """Return the result of a call of one of the allowed functions.

    Raises:
        UnpicklingError: the function or its arguments are not allowed.
    """
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise UnpicklingError("the pickle calls an object that is not a function")
    target = (function.module, function.name)
    if machine.foreign and target in machine.foreign.names:
        return machine.foreign.called(target, arguments)
    match (function.module, function.name, *arguments):
        case (_, "_reconstruct", _Name("numpy", "ndarray"), *_):
            return _Array()
        case ("numpy", "dtype", str() as text, *_) if _ELEMENTS.fullmatch(text):
            return _DType(text)
        case ("numpy", "dtype", str() as text, *_):
            raise UnpicklingError(f"elements have type {text[:40]!r}, expected numbers")
        case (_, "scalar", _DType() as kind, str() as text):
            return _array((), kind, machine.latin1(text), "C")[()]
        case (_, "scalar", _DType() as kind, bytes() as content):
            return _array((), kind, content, "C")[()]
        case (_, "_frombuffer", bytes() as content, _DType() as kind, shape, order):
            return _Array(_array(shape, kind, content, order))
        case ("_codecs", "encode", str() as text, "latin1"):
            return machine.latin1(text)
        case ("collections", "OrderedDict"):
            return {}
        case (_, "bytes"):
            return b""
    raise UnpicklingError(
        f"the pickle calls {function.module}.{function.name} with unexpected arguments"
    )


_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("builtins", "bytes"),
    ("__builtin__", "bytes"),
    *((module, name) for module in _NUMPY for name in ("_reconstruct", "scalar")),
    *((module, "_frombuffer") for module in _NUMERIC),
}


def _global(machine: "_Machine", module: Any, name: Any) -> _Name:
    foreign = machine.foreign.names if machine.foreign else frozenset()
    if (module, name) not in _ALLOWED and (module, name) not in foreign:
        raise UnpicklingError(f"the pickle refers to {module}.{name}, which is not allowed")
    return _Name(module, name)


@dataclass
class _Machine:
    """Stack and memo of a pickle.

    Attributes:
        bytes_to_make: how many more bytes the pickle may create from text.
        foreign: what another tool's pickles contain; None for paddle.save.
    """

    bytes_to_make: int
    foreign: Foreign | None = None
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def latin1(self, text: str) -> bytes:
        """Return bytes that were written as text; in total at most the size of the file."""
        self.bytes_to_make -= len(text)
        if self.bytes_to_make < 0:
            raise UnpicklingError("the pickle creates more bytes than the file has")
        return text.encode("latin1")

    def pop(self) -> Any:
        """Remove and return the topmost value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise UnpicklingError(_STACK_EMPTY)
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Remove the topmost mark and return the values above it."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise UnpicklingError(_STACK_EMPTY)

    def top(self) -> Any:
        """Return the topmost value and keep it on the stack."""
        self.stack.append(value := self.pop())
        return value

    def append(self, values: list[Any]) -> None:
        """Append values to the topmost value, a list."""
        if not isinstance(target := self.top(), list):
            raise UnpicklingError("the pickle appends to an object that is not a list")
        target.extend(values)

    def set_items(self, items: list[Any]) -> None:
        """Add keys and values to the topmost value, a dictionary."""
        if not isinstance(target := self.top(), dict) or len(items) % 2:
            raise UnpicklingError("the pickle adds items to an object that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a key of deeply nested tuples can take hours.
            if not isinstance(key, str | int):
                raise UnpicklingError(f"a key has type {type(key).__name__}, expected a name")
            target[key] = value

    def build(self) -> None:
        """Set the state of an array or an element type."""
        state, target = self.pop(), self.top()
        if self.foreign and isinstance(target, dict):
            # Attributes of an ordered dictionary, such as the versions of a network's layers.
            return
        if not isinstance(target, _Array | _DType):
            raise UnpicklingError("the pickle sets attributes of an object that is not an array")
        target.set_state(state, self)

    def persistent(self) -> None:
        """Replace the topmost value, a reference, by the object that it names."""
        if self.foreign is None:
            raise UnpicklingError("found instruction BINPERSID, which paddle.save does not write")
        self.stack.append(self.foreign.persistent(self.pop()))

    def get(self, number: int) -> Any:
        """Return the value in the memo under a number."""
        if number not in self.memo:
            raise UnpicklingError(f"the memo has no value {number}")
        return self.memo[number]

    def remember(self, number: int) -> None:
        """Store the topmost value in the memo under a number."""
        self.memo[number] = self.top()


_VALUES = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ACTIONS: Mapping[str, Callable[[_Machine, Any], object]] = {
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "BINPUT": lambda machine, number: machine.remember(number),
    "LONG_BINPUT": lambda machine, number: machine.remember(number),
    "BINGET": lambda machine, number: machine.stack.append(machine.get(number)),
    "LONG_BINGET": lambda machine, number: machine.stack.append(machine.get(number)),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.persistent(),
    "BYTEARRAY8": lambda machine, content: machine.stack.append(bytes(content)),
    "GLOBAL": lambda machine, text: machine.stack.append(_global(machine, *text.split(" ", 1))),
    "PROTO": lambda _machine, _number: None,
    "FRAME": lambda _machine, _bytes: None,
}


def _step(machine: _Machine, name: str, argument: Any) -> None:
    """Execute one instruction.

    Raises:
        UnpicklingError: the instruction or its values are not allowed.
    """
    if name in _VALUES:
        machine.stack.append(argument)
    elif name in _CONSTANTS:
        machine.stack.append(_CONSTANTS[name])
    elif name in _TUPLES:
        values = [machine.pop() for _ in range(_TUPLES[name])]
        machine.stack.append(tuple(reversed(values)))
    elif name == "STACK_GLOBAL":
        attribute, module = machine.pop(), machine.pop()
        machine.stack.append(_global(machine, module, attribute))
    elif name == "REDUCE":
        arguments, function = machine.pop(), machine.pop()
        machine.stack.append(_called(function, arguments, machine))
    elif name in _ACTIONS:
        _ACTIONS[name](machine, argument)
    else:
        raise UnpicklingError(f"found instruction {name}, which paddle.save does not write")


def load(content: bytes, foreign: Foreign | None = None) -> Any:
    """Return the object in a pickle.

    Args:
        content: a file that paddle.save wrote, pickle protocol 2 to 5.
        foreign: what the pickles of another tool contain besides arrays of numpy.

    Returns:
        Numbers, text, bytes, arrays, lists, tuples and dictionaries. :func:`array_of` returns the
        values of an array.

    Raises:
        UnpicklingError: the pickle is damaged or contains another kind of object.
    """
    machine = _Machine(len(content), foreign)
    try:
        with warnings.catch_warnings():
            # Python warns of backslashes in names. _global rejects such names.
            warnings.simplefilter("ignore")
            _follow(machine, content)
    except (ValueError, TypeError) as error:
        # pickletools raises these if the content is not a pickle, and _global if a module or name
        # is unhashable.
        raise UnpicklingError(str(error)[:200] or type(error).__name__) from error
    return machine.pop()


def _follow(machine: _Machine, content: bytes) -> None:
    """Execute all instructions.

    Raises:
        UnpicklingError, ValueError, TypeError: an instruction is damaged or not allowed.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
        if count == _MOST_INSTRUCTIONS:
            raise UnpicklingError(f"the pickle has more than {count:,} instructions, the limit")
        if opcode.name != "STOP":
            _step(machine, opcode.name, argument)


def array(values: NDArray[Any]) -> Any:
    """Return an array as :func:`load` returns it, for :class:`Foreign`."""
    return _Array(values)


def array_of(value: Any) -> NDArray[Any] | None:
    """Return the array that a value of :func:`load`'s result stands for; None for other values."""
    return value.values if isinstance(value, _Array) else None
