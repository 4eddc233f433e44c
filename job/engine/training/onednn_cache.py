"""Frees the reordered tensors of each oneDNN convolution before the next convolution runs.

Paddle's oneDNN convolutions keep the reordered copies of their inputs and gradients until the
process ends. In a training step these are four copies of all activations. Paddle can limit the
number of cached entries, which its predictors use for images of several sizes
(``set_mkldnn_cache_capacity``): each entry belongs to the current shape of the images, and the
first entry of another shape deletes the oldest shape. Here each convolution has its own "shape", so
the cache contains the tensors of one convolution.

Paddle's Python API has no function for this cache. This module calls the C++ functions that
``libphi_core.so`` exports, from ops of type ``py_func`` in the program. The cache never changes a
result, wherever these ops run.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import paddle
from paddle.static import Program
from paddle.static.nn.common import PyFuncRegistry

LIBRARY = "libphi_core.so"
_LOCALS = "_ZN3phi25OneDNNContextThreadLocals"
FETCH = f"{_LOCALS}5fetchEv"
SET_SESSION = f"{_LOCALS}4Body25set_cur_onednn_session_idEm"
SET_CAPACITY = f"{_LOCALS}4Body34set_cur_input_shape_cache_capacityEi"
SET_SHAPE = (
    f"{_LOCALS}4Body23set_cur_input_shape_strENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
)
# Sessions of the cache: without a limit, and with a limited number of shapes.
UNLIMITED, LIMITED = 0, ctypes.c_ulong(-1).value
PY_FUNC = "py_func"
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")


class _String(ctypes.Structure):
    """A ``std::string`` of at most 15 bytes in the ABI of libstdc++."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("characters", ctypes.c_char * 16),
    )

    @classmethod
    def of(cls, text: str) -> "_String":
        string = cls(0, len(text), text.encode())
        string.data = ctypes.addressof(string) + cls.characters.offset
        return string


@cache
def _functions() -> tuple[Any, ...]:
    """Return the functions of the library, with the types of their arguments.

    Raises:
        AttributeError: the installed Paddle does not export a function.
    """
    library = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / LIBRARY))
    signatures = (
        (FETCH, ctypes.c_void_p, ()),
        (SET_SESSION, None, (ctypes.c_void_p, ctypes.c_ulong)),
        (SET_CAPACITY, None, (ctypes.c_void_p, ctypes.c_int)),
        (SET_SHAPE, None, (ctypes.c_void_p, ctypes.POINTER(_String))),
    )
    functions = []
    for name, result, arguments in signatures:
        function = library[name]
        function.restype, function.argtypes = result, arguments
        functions.append(function)
    return tuple(functions)


def select(session: int, shape: str) -> None:
    """Choose where the oneDNN ops of this thread store their cached objects from now on.

    Args:
        session: ``UNLIMITED``, or ``LIMITED`` to keep the entries of one shape.
        shape: at most 15 characters.
    """
    fetch, set_session, set_capacity, set_shape = _functions()
    thread = fetch()
    set_session(thread, session)
    set_capacity(thread, 1)
    set_shape(thread, _String.of(shape))


def free_op_by_op(program: Program) -> int:
    """Insert the ops that limit the cache before each oneDNN convolution and behind the last one.

    Args:
        program: a program for the CPU, changed.

    Returns:
        The number of convolutions.
    """
    block = program.global_block()
    places = [
        (index, op.input("Output@GRAD" if op.type.endswith("_grad") else "Input")[0])
        for index, op in enumerate(block.ops)
        if op.type.removesuffix("_grad") in CONVOLUTIONS
        and op.has_attr("use_mkldnn")
        and op.attr("use_mkldnn")
    ]
    for number, (index, name) in reversed(list(enumerate(places))):
        if number == len(places) - 1:
            _insert(block, index + 1, name, lambda: select(UNLIMITED, ""))
        _insert(block, index, name, _selecting(number))
    program._sync_with_cpp()
    return len(places)


def _selecting(number: int) -> Callable[[], None]:
    return lambda: select(LIMITED, f"op {number}")


def _insert(block: Any, index: int, reads: str, call: Callable[[], None]) -> None:
    """Insert an op that calls a function as soon as the variable ``reads`` is computed."""
    function = PyFuncRegistry(lambda _: call())
    block._insert_op_without_sync(
        index,
        type=PY_FUNC,
        inputs={"X": [block.var(reads)]},
        outputs={"Out": []},
        attrs={
            "forward_callable_id": function.id,
            "backward_callable_id": -1,
            "backward_skip_vars": [],
        },
    )
