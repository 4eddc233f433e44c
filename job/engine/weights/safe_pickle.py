"""Reading a pickle of arrays in plain containers without running any of it.

Python's own unpickler, even with its globals restricted, allocates what a few bytes claim (its
memo, an array's shape), hashes nested tuples for hours and lets a file set attributes of what it
loads. So the instructions are followed here, those that paddle.save writes and no others, and an
array is made only of bytes that are there.
"""

import io
import math
import pickletools
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Booleans, integers, floating-point numbers, as numpy writes them.
_ELEMENTS = re.compile("[biuf](1|2|4|8|16)")
# A network of a thousand arrays takes some 35,000; each may cost a hundred bytes of memory.
_MOST_INSTRUCTIONS = 5_000_000
_LARGEST_SIZE = 1 << 48
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_MOST_DIMENSIONS = 32


class _Mark:
    """Where an instruction that takes several values stops taking."""


_MARK = _Mark()


@dataclass(frozen=True)
class _Name:
    """A global that the file names; it stands for itself until it is called."""

    module: str
    name: str


@dataclass
class _DType:
    """An array's element type; big-endian if its state says so."""

    text: str
    order: str = "<"

    def set_state(self, state: Any, _machine: "_Machine") -> None:
        """Take (version, byte order, ...) as numpy writes it."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise UnpicklingError("an element type of an unknown kind")
        self.order = str(state[1])

    def made(self) -> "np.dtype[Any]":
        """The element type."""
        found = np.dtype(self.text)
        return found.newbyteorder(">") if self.order == ">" else found


@dataclass
class _Array:
    """An array on its way."""

    values: NDArray[Any] | None = None

    def set_state(self, state: Any, machine: "_Machine") -> None:
        """Take (version, shape, element type, by columns, bytes) as numpy writes it."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise UnpicklingError("an array of an unknown kind")
        _, shape, kind, by_columns, content = state
        if isinstance(content, str):
            # Python 2 wrote bytes as text.
            content = machine.latin1(content)
        self.values = _array(shape, kind, content, "F" if by_columns is True else "C")


def _array(shape: Any, kind: Any, content: Any, order: Any) -> NDArray[Any]:
    """An array of exactly the bytes that are given."""
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MOST_DIMENSIONS
        or not all(type(size) is int and 0 <= size < _LARGEST_SIZE for size in shape)
        or not isinstance(kind, _DType)
        or not isinstance(content, bytes)
        or order not in ("C", "F")
    ):
        raise UnpicklingError("an array of an unknown kind")
    dtype = kind.made()
    if math.prod(shape) * dtype.itemsize != len(content):
        raise UnpicklingError(
            f"an array of {'x'.join(map(str, shape))[:60]} {dtype.name} in {len(content):,} bytes"
        )
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _called(function: Any, arguments: Any, machine: "_Machine") -> Any:
    """What a call of one of the few safe functions gives."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise UnpicklingError("it calls what is no function")
    match (function.module, function.name, *arguments):
        case (_, "_reconstruct", _Name("numpy", "ndarray"), *_):
            return _Array()
        case ("numpy", "dtype", str() as text, *_) if _ELEMENTS.fullmatch(text):
            return _DType(text)
        case ("numpy", "dtype", str() as text, *_):
            raise UnpicklingError(f"elements of type {text[:40]!r}, which are no numbers")
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
    raise UnpicklingError(f"it calls {function.module}.{function.name} as no array does")


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


def _global(module: Any, name: Any) -> _Name:
    if (module, name) not in _ALLOWED:
        raise UnpicklingError(f"it asks for {module}.{name}, which is no array")
    return _Name(module, name)


@dataclass
class _Machine:
    """Follows the instructions of a pickle that may make so many bytes of text."""

    bytes_to_make: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def latin1(self, text: str) -> bytes:
        """Bytes that were written as text; all together no more than the file has."""
        self.bytes_to_make -= len(text)
        if self.bytes_to_make < 0:
            raise UnpicklingError("it makes more of its bytes than there are")
        return text.encode("latin1")

    def pop(self) -> Any:
        """Take the topmost value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise UnpicklingError("it takes more than it has")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take all values above the topmost mark, and the mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise UnpicklingError("it takes more than it has")

    def top(self) -> Any:
        """The topmost value, which stays."""
        self.stack.append(value := self.pop())
        return value

    def append(self, values: list[Any]) -> None:
        """Add values to the list that is topmost."""
        if not isinstance(target := self.top(), list):
            raise UnpicklingError("it appends to what is no list")
        target.extend(values)

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values into the dictionary that is topmost."""
        if not isinstance(target := self.top(), dict) or len(items) % 2:
            raise UnpicklingError("it puts items into what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A key that is a tuple of tuples of tuples takes for ever to hash.
            if not isinstance(key, str | int):
                raise UnpicklingError(f"a key that is no name but of type {type(key).__name__}")
            target[key] = value

    def build(self) -> None:
        """Give a state to an array or an element type."""
        state, target = self.pop(), self.top()
        if not isinstance(target, _Array | _DType):
            raise UnpicklingError("it sets attributes of what is no array")
        target.set_state(state, self)

    def get(self, place: int) -> Any:
        """What was remembered under a number."""
        if place not in self.memo:
            raise UnpicklingError(f"it recalls value {place}, which it never kept")
        return self.memo[place]

    def remember(self, place: int) -> None:
        """Keep the topmost value under a number."""
        self.memo[place] = self.top()


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
    "BINPUT": lambda machine, place: machine.remember(place),
    "LONG_BINPUT": lambda machine, place: machine.remember(place),
    "BINGET": lambda machine, place: machine.stack.append(machine.get(place)),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.get(place)),
    "BUILD": lambda machine, _: machine.build(),
    "BYTEARRAY8": lambda machine, content: machine.stack.append(bytes(content)),
    "GLOBAL": lambda machine, text: machine.stack.append(_global(*text.split(" ", 1))),
    "PROTO": lambda _machine, _number: None,
    "FRAME": lambda _machine, _bytes: None,
}


def _step(machine: _Machine, name: str, argument: Any) -> None:
    """Follow one instruction."""
    if name in _VALUES:
        machine.stack.append(argument)
    elif name in _CONSTANTS:
        machine.stack.append(_CONSTANTS[name])
    elif name in _TUPLES:
        values = [machine.pop() for _ in range(_TUPLES[name])]
        machine.stack.append(tuple(reversed(values)))
    elif name == "STACK_GLOBAL":
        attribute, module = machine.pop(), machine.pop()
        machine.stack.append(_global(module, attribute))
    elif name == "REDUCE":
        arguments, function = machine.pop(), machine.pop()
        machine.stack.append(_called(function, arguments, machine))
    elif name in _ACTIONS:
        _ACTIONS[name](machine, argument)
    else:
        raise UnpicklingError(f"the instruction {name}, which paddle.save does not write")


def load(content: bytes) -> Any:
    """The document in a pickle: numbers, text, bytes, arrays, lists, tuples and dictionaries.

    Args:
        content: as written by paddle.save, pickle protocol 2 to 5.

    Raises:
        UnpicklingError: it is damaged, or holds anything else; says what.
    """
    machine = _Machine(len(content))
    try:
        with warnings.catch_warnings():
            # Of backslashes in names, which are refused as such.
            warnings.simplefilter("ignore")
            _follow(machine, content)
    except (ValueError, TypeError) as error:
        # pickletools on what is no pickle; a module or name that is unhashable.
        raise UnpicklingError(str(error)[:200] or type(error).__name__) from error
    return machine.pop()


def _follow(machine: _Machine, content: bytes) -> None:
    """Follow all instructions.

    Raises:
        UnpicklingError, ValueError, TypeError: one of them is damaged or not allowed.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
        if count == _MOST_INSTRUCTIONS:
            raise UnpicklingError(f"more than {count:,} instructions; arrays take far fewer")
        if opcode.name != "STOP":
            _step(machine, opcode.name, argument)


def array_of(value: Any) -> NDArray[Any] | None:
    """The array that a value of a document is, None if it is something else."""
    return value.values if isinstance(value, _Array) else None
