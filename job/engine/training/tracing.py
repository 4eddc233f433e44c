"""Builds a network in a static program, as Paddle would run it eagerly.

A static program is built by calling the network once with variables that have no values. Python
code that needs a value would then silently do something else than in eager execution. Here such
code either works or is rejected with its file and line.
"""

import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import paddle
from paddle import nn, static
from paddle.base.framework import Variable
from paddle.jit.dy2static.program_translator import StaticFunction
from paddle.nn.utils.weight_norm_hook import WeightNorm

import job
from job.engine.inference.paddle_format import CALL_STACK
from job.engine.training import weight_norm
from job.engine.training.code_hints import explanation_of
from job.engine.training.legacy_functions import legacy_functions, replaced
from job.errors import JobError, UsageError

PADDLE, OURS = (str(Path(file).parent) for file in (paddle.__file__, job.__file__))
PYTHON = sysconfig.get_paths()["stdlib"]
OUTPUT_NAMES = ("logits", "out", "output", "scores")
# Functions whose argument is a list of sizes.
OF_SIZES = ("expand", "broadcast_to", "tile", "zeros", "ones", "full", "rand", "randn")


IN_PLACE = r"In static graph mode, (\w+)\(\)"
WarningAction = Literal["ignore", "always"]


class BatchSize(int):
    """The unknown number of images: -1, as in Paddle, with the variable that has this size.

    Products and quotients with known numbers are unknown, too. ``reshape`` computes such a size
    from the other sizes.
    """

    source: Variable

    def _unknown(self, _: Any) -> "BatchSize":
        return self

    __mul__ = __rmul__ = __floordiv__ = __truediv__ = _unknown


@contextmanager
def eager_semantics(in_place: WarningAction = "ignore") -> Iterator[None]:
    """Make code of a network inside the context do what it would do in eager execution.

    Args:
        in_place: what happens with Paddle's warning that a function such as ``relu_`` returns a new
            tensor. The result is compared with eager execution, so the warning is not needed.
    """
    functions = {"reshape": reshape}
    functions |= {name: with_variable_sizes(getattr(paddle, name)) for name in OF_SIZES}
    methods = {name: value for name, value in functions.items() if hasattr(Variable, name)}
    values = {"__bool__": truth, "__iter__": iterate, "shape": property(shape_of)}
    with (
        warnings.catch_warnings(),
        legacy_functions(),
        replaced(paddle, functions),
        replaced(Variable, {**methods, **values}),
        replaced(nn.Layer, {"register_buffer": register_buffer}),
        untranslated(),
        replaced(WeightNorm, {"apply": staticmethod(weight_norm.apply)}),
    ):
        warnings.filterwarnings(in_place, message=IN_PLACE)
        yield


@contextmanager
def untranslated() -> Iterator[None]:
    """Call functions that ``paddle.jit.to_static`` decorates as they are written.

    Paddle refuses to call such functions in a static program.
    """
    with replaced(StaticFunction, {"__call__": StaticFunction._call_dygraph_function}):
        yield


_original_shape = Variable.shape
_original_reshape = paddle.reshape
_original_register_buffer = nn.Layer.register_buffer


def truth(_: Variable) -> bool:
    """Return whether a variable is true; only Paddle may call this, to test for None.

    Raises:
        UsageError: code of the network called this.
    """
    frame = sys._getframe(1)
    if frame.f_code.co_filename.startswith(PADDLE):
        return True
    raise UsageError(
        f"/model/callable: {place(frame)} decides by the value of a tensor, which differs from "
        "image to image",
        "Compute both results and select one with paddle.where, or decide before the network runs.",
    )


def iterate(variable: Variable) -> Iterator[Variable]:
    """Return the parts of a variable along its first axis.

    Raises:
        UsageError: the first axis is the batch. Without this error, the loop would never end,
            because a program has a part for every number.
    """
    size = variable.shape[0]
    if size >= 0:
        return (variable[index] for index in range(size))
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_own(frame.f_code.co_filename):
        frame = frame.f_back
    raise UsageError(
        f"/model/callable: {place(frame or sys._getframe(1))} loops over the images of a batch, "
        "but their number is not known when the program is built",
        "Compute all images at once: Paddle's functions accept a batch.",
    )


def place(frame: FrameType) -> str:
    """Return the file and line of a frame."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def shape_of(variable: Variable) -> tuple[int, ...]:
    """Return a variable's shape; the network's own code gets :class:`BatchSize` for the batch."""
    shape = _original_shape.fget(variable)
    if not shape or shape[0] != -1 or sys._getframe(1).f_code.co_filename.startswith(PADDLE):
        return shape
    size = BatchSize(-1)
    size.source = variable
    return type(shape)((size, *shape[1:]))


def reshape(x: Variable, shape: Any, name: str | None = None) -> Variable:
    """Call ``paddle.reshape``.

    If the batch size and another size are unknown, the batch size becomes 0, which means the size
    of the input.
    """
    if isinstance(shape, list | tuple) and len(shape) > 1 and isinstance(shape[0], BatchSize):
        unknown = [size for size in shape[1:] if not isinstance(size, Variable) and size == -1]
        shape = [0 if unknown else -1, *shape[1:]]
    return _original_reshape(x, shape, name)


def with_variable_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that reads unknown sizes in its arguments when the program runs."""

    def call(*args: Any, **kwargs: Any) -> Any:
        known = {key: variable_sizes(value) for key, value in kwargs.items()}
        return function(*map(variable_sizes, args), **known)

    return call


def variable_sizes(value: Any) -> Any:
    """Return a list of sizes with a variable for the number of images; other values unchanged."""
    if not isinstance(value, list | tuple) or not any(isinstance(v, BatchSize) for v in value):
        return value
    return [paddle.shape(v.source)[0] if isinstance(v, BatchSize) else v for v in value]


def register_buffer(layer: nn.Layer, name: str, tensor: Any, persistable: bool = True) -> None:
    """Register a buffer; a variable becomes a weight that no optimizer changes."""
    if not isinstance(tensor, Variable):
        _original_register_buffer(layer, name, tensor, persistable)
        return
    _original_register_buffer(layer, name, None, persistable)
    layer._buffers[name] = constant(tensor)


def constant(variable: Variable) -> Variable:
    """Return a weight with the value of a variable that depends on no input."""
    executor, scope = static.Executor(paddle.CPUPlace()), static.Scope()
    program = variable.block.program.clone()._prune([variable])
    with static.scope_guard(scope):
        (value,) = executor.run(program, fetch_list=[variable.name])
    weight = static.create_global_var(
        list(value.shape), 0, str(value.dtype), persistable=True, force_cpu=True
    )
    startup = static.default_startup_program()
    with static.program_guard(startup):
        paddle.assign(value, output=startup.global_block().var(weight.name))
    return weight


def logits_of(outputs: Any) -> Any:
    """Return the logits among a network's outputs.

    These are the only output, the output with the usual name, or else the first of a list or tuple.
    Outputs that are None are ignored: a model often returns its loss only during training.

    Raises:
        UsageError: the outputs hold no tensor that can be selected.
    """
    if isinstance(outputs, Variable | paddle.Tensor):
        return outputs
    entries = {key: value for key, value in entries_of(outputs).items() if value is not None}
    named = [entries[name] for name in OUTPUT_NAMES if name in entries]
    if len(entries) == 1 or isinstance(outputs, list | tuple):
        named += entries.values()
    if named:
        return logits_of(named[0])
    found = type(outputs).__name__
    if entries:
        found = f"{found} with {', '.join(map(repr, entries))}"
    raise UsageError(
        f"/model/callable: the network returned {found}, expected a tensor [N, classes]",
        "Return the logits, a list or tuple with the logits first, or a dict with key 'logits'.",
    )


def entries_of(outputs: Any) -> Mapping[Any, Any]:
    """Return the entries of a container by name or position; empty for other values."""
    if isinstance(outputs, Mapping):
        return outputs
    if hasattr(outputs, "_asdict"):
        return outputs._asdict()
    if isinstance(outputs, list | tuple):
        return dict(enumerate(outputs))
    if is_dataclass(outputs):
        return {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    return {}


@contextmanager
def code_errors(target: str | None) -> Iterator[None]:
    """Translate errors of a user's code into errors that name the file and line.

    Args:
        target: name of the code, for the message; None for a network of the zoo.

    Raises:
        UsageError: the code inside the context raised an error.
    """
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        if target is None or is_shape_error(error):
            raise
        where = failing_place(error)
        if found := explanation_of(error):
            raise UsageError(
                f"/model/callable: {target} failed at {where}: {found.what}", found.hint
            ) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(
            f"/model/callable: {target} failed at {where}: {type(error).__name__}: "
            f"{lines[0] if lines else ''}",
            "Call the network with a variable of paddle.static.data, in static mode and with "
            "FLAGS_enable_pir_api=0, to see the whole error.",
        ) from error


def in_place_functions(build: Callable[[], Any]) -> list[str]:
    """Return the functions that should change a tensor in place, but return a new one.

    Args:
        build: traces a network inside :func:`eager_semantics` with ``in_place`` "always".
    """
    with warnings.catch_warnings(record=True) as seen:
        build()
    found = (re.match(IN_PLACE, str(warning.message)) for warning in seen)
    return sorted({match[1] for match in found if match})


def is_shape_error(error: Exception) -> bool:
    """Return whether Paddle reported that shapes do not fit."""
    return isinstance(error, ValueError | RuntimeError) and "InvalidArgument" in str(error)


def failing_place(error: Exception) -> str:
    """Return the last place in the network's code, or Paddle's function if there is none."""
    frames = [
        (frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [f"{name}:{line}" for name, line, _ in frames if is_own(name)]
    layers = [called for name, _, called in frames if name.startswith(f"{PADDLE}/nn")]
    if own:
        return own[-1]
    # The job itself appends the input and the loss.
    return f"Paddle's function {layers[-1]}" if layers else "the input or the loss"


def places_in(message: str) -> list[str]:
    """Return the places in the network's code that an error message of Paddle names."""
    found = re.findall(r'File "(.+)", line (\d+)', message)
    return [f"{name}:{line}" for name, line in found if is_own(name)]


def place_of(op: Any) -> str:
    """Return the place in the network's code that appended an op; empty if it is unknown."""
    places = places_in("\n".join(op.attr(CALL_STACK) or [])) if op.has_attr(CALL_STACK) else []
    return places[-1] if places else ""


def is_own(file: str) -> bool:
    """Return whether a file belongs neither to Paddle, nor to Python, nor to this program."""
    of_python = file.startswith(PYTHON) and "site-packages" not in file
    return not of_python and not file.startswith((PADDLE, OURS, "<"))
