"""Lets networks call functions of Paddle 3 that reject variables of legacy programs.

Paddle 3.2 generates 30 functions, such as ``paddle.matmul`` and ``nn.functional.sigmoid``, that
only call ``paddle._C_ops``. That module accepts eager tensors and PIR values. This module gives
these functions the op of the legacy format, whose slots and attributes are as in Paddle 2.6.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import paddle
from paddle import _C_ops
from paddle.base.framework import Variable
from paddle.base.layer_helper import LayerHelper

# Names of arguments that Paddle's functions also accept.
ALIASES = {"input": "x", "other": "y", "mat2": "y", "dim": "axis", "dims": "axis"}
Arguments = Mapping[str, Any]


def unary(kind: str, dtype: str | None = None) -> Callable[[Arguments], Variable]:
    """Return a function that appends an op with the input X."""
    return lambda given: append(kind, {"X": given["x"]}, {}, dtype)


def binary(kind: str, dtype: str | None = None) -> Callable[[Arguments], Variable]:
    """Return a function that appends an op with the inputs X and Y, which broadcast."""
    return lambda given: append(kind, {"X": given["x"], "Y": given["y"]}, {"axis": -1}, dtype)


def reduction(kind: str, dtype: str | None = None) -> Callable[[Arguments], Variable]:
    """Return a function that appends an op that reduces some axes of X, or all axes."""

    def route(given: Arguments) -> Variable:
        axes, whole = axes_of(given)
        attributes = {"dim": axes, "keep_dim": given["keepdim"], "reduce_all": whole}
        return append(kind, {"X": given["x"]}, attributes, dtype)

    return route


def axes_of(given: Arguments) -> tuple[list[int], bool]:
    """Return the axes to reduce, and whether these are all axes."""
    axis, rank = given["axis"], len(given["x"].shape)
    axes = [axis] if isinstance(axis, int) else list(axis or ())
    return axes or list(range(rank)), len(axes) in (0, rank)


def logsumexp(given: Arguments) -> Variable:
    """Append the op for ``paddle.logsumexp``."""
    axes, whole = axes_of(given)
    attributes = {"axis": axes, "keepdim": given["keepdim"], "reduce_all": whole}
    return append("logsumexp", {"X": given["x"]}, attributes)


def roll(given: Arguments) -> Variable:
    """Append the op for ``paddle.roll``."""
    shifts, axis = given["shifts"], given["axis"]
    attributes = {
        "shifts": [shifts] if isinstance(shifts, int) else list(shifts),
        "axis": [axis] if isinstance(axis, int) else list(axis or ()),
    }
    return append("roll", {"X": given["x"]}, attributes)


def triangle(*, lower: bool) -> Callable[[Arguments], Variable]:
    """Return a function that appends the op for ``paddle.tril`` or ``paddle.triu``."""
    return lambda given: append(
        "tril_triu", {"X": given["x"]}, {"diagonal": given["diagonal"], "lower": lower}
    )


def matmul(given: Arguments) -> Variable:
    """Append the op for ``paddle.matmul``."""
    attributes = {"trans_x": given["transpose_x"], "trans_y": given["transpose_y"]}
    return append("matmul_v2", {"X": given["x"], "Y": given["y"]}, attributes)


def bmm(given: Arguments) -> Variable:
    """Append the op for ``paddle.bmm``."""
    return append("bmm", {"X": given["x"], "Y": given["y"]}, {})


def expand_as(given: Arguments) -> Variable:
    """Append the op for ``paddle.expand_as``."""
    x, y = given["x"], given["y"]
    return append("expand_as_v2", {"X": x, "Y": y}, {"target_shape": list(y.shape)})


def append(
    kind: str,
    inputs: Mapping[str, Variable],
    attributes: Mapping[str, Any],
    dtype: str | None = None,
) -> Variable:
    """Append an op to the current program and return its output.

    Args:
        kind: op type.
        inputs: variable by slot.
        attributes: values by name.
        dtype: the output's data type; None: the data type of the first input.
    """
    helper = LayerHelper(kind)
    first = next(iter(inputs.values()))
    output = helper.create_variable_for_type_inference(dtype or first.dtype)
    helper.append_op(
        type=kind, inputs=dict(inputs), outputs={"Out": output}, attrs=dict(attributes)
    )
    return output


ROUTES: Mapping[str, Callable[[Arguments], Variable]] = {
    **{name: unary(name) for name in ("cos", "floor", "log", "rsqrt", "sigmoid", "sign", "sin")},
    "sqrt": unary("sqrt"),
    **{name: unary(f"{name}_v2", "bool") for name in ("isfinite", "isinf", "isnan")},
    "all": reduction("reduce_all", "bool"),
    "any": reduction("reduce_any", "bool"),
    "amin": reduction("reduce_amin"),
    "amax": reduction("reduce_amax"),
    "logsumexp": logsumexp,
    "roll": roll,
    "tril": triangle(lower=True),
    "triu": triangle(lower=False),
    "matmul": matmul,
    "bmm": bmm,
    "expand_as": expand_as,
    "multiply": binary("elementwise_mul"),
    "maximum": binary("elementwise_max"),
    "minimum": binary("elementwise_min"),
    "greater_than": binary("greater_than", "bool"),
    "logical_and": binary("logical_and", "bool"),
    "logical_or": binary("logical_or", "bool"),
    "logical_xor": binary("logical_xor", "bool"),
    "logical_not": unary("logical_not", "bool"),
}


@contextmanager
def replaced(owner: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Set attributes of a module or class inside the context."""
    originals = {name: vars(owner).get(name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, original in originals.items():
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


@contextmanager
def legacy_functions() -> Iterator[None]:
    """Route calls of these functions with legacy variables to legacy ops inside the context."""
    functions = {name: routed(name, getattr(_C_ops, name)) for name in ROUTES}
    with ExitStack() as stack:
        for owner, names in owners():
            stack.enter_context(replaced(owner, {name: functions[name] for name in names}))
        yield


def owners() -> list[tuple[Any, list[str]]]:
    """Return the modules and classes that hold functions of ``paddle._C_ops``, and their names."""
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "paddle"]
    found = []
    for owner in (*modules, Variable):
        values = vars(owner)
        # The intersection is four times as fast as looking up each name in a thousand modules.
        names = [n for n in ROUTES.keys() & values.keys() if values[n] is getattr(_C_ops, n)]
        found.append((owner, names))
    return [(owner, names) for owner, names in found if names]


def routed(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that appends a legacy op if an argument is a legacy variable."""
    signature = inspect.signature(getattr(paddle, name))

    def call(*args: Any, **kwargs: Any) -> Any:
        if not has_variable((*args, *kwargs.values())):
            return original(*args, **kwargs)
        known = {ALIASES.get(key, key): value for key, value in kwargs.items()}
        bound = signature.bind(*args, **known)
        bound.apply_defaults()
        return ROUTES[name](bound.arguments)

    return call


def has_variable(values: Sequence[Any]) -> bool:
    """Return whether one of the values is a variable of a legacy program."""
    return any(isinstance(value, Variable) for value in values)
