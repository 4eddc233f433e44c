"""Weights files: read without running code, checked against their digest."""

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray, numeric
from numpy.typing import NDArray

from job.errors import DataError

# What a file written by paddle.save holds: arrays, in plain containers.
SAFE_GLOBALS = {
    ("builtins", "tuple"): tuple,
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): None,
}
NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric")


def encode(text: str, encoding: str) -> bytes:
    """What ``_codecs.encode`` does in old pickles of bytes, for the one encoding they use."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return text.encode("latin1")


class ArrayUnpickler(pickle.Unpickler):
    """Admits arrays and plain containers; anything else is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        """The few safe constructors."""
        if module in NUMPY_MODULES and name in ("_reconstruct", "scalar", "_frombuffer"):
            return getattr(multiarray, name, None) or getattr(numeric, name)
        if (module, name) == ("_codecs", "encode"):
            return encode
        if (module, name) in SAFE_GLOBALS:
            return SAFE_GLOBALS[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")


def read_pdparams(path: Path, sha256: str | None) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.pdparams`` file by the network's own names.

    Args:
        path: the file.
        sha256: its expected digest, hexadecimal, or None.

    Raises:
        DataError: missing, of another digest, corrupt, or holding more than arrays.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"weights {path}: {error.strerror or error}", "Check /model/weights."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise DataError(
            f"weights {path}: SHA-256 is {found}, expected {sha256}",
            "The file is damaged or another one; fetch it again or correct /model/weights_sha256.",
        )
    try:
        document = ArrayUnpickler(io.BytesIO(content)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(
            f"weights {path}: not a .pdparams file of arrays: {error or type(error).__name__}",
            "Save it anew with paddle.save(network.state_dict(), path).",
        ) from error
    except (
        AttributeError,
        ImportError,
        MemoryError,
        OverflowError,
        RuntimeError,
        SystemError,
        UnicodeDecodeError,
    ) as error:
        raise DataError(f"weights {path}: corrupt: {error}", "Fetch the file again.") from error
    return arrays_of(document, path)


def arrays_of(document: Any, path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by name; paddle.save keeps a tensor as an array or as (name, array)."""
    if not isinstance(document, Mapping):
        raise DataError(f"weights {path}: expected arrays by name, found {type(document).__name__}")
    arrays = {}
    for key, value in document.items():
        if isinstance(value, tuple) and len(value) == 2:
            value = value[1]
        if isinstance(value, np.ndarray):
            arrays[str(key)] = value
    if not arrays:
        raise DataError(f"weights {path}: no arrays in it", "Is this an optimizer's state?")
    return arrays


def match(
    given: Mapping[str, NDArray[Any]],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    source: str,
    reset_classifier: bool,
) -> dict[str, NDArray[Any]]:
    """The given weights that a network takes, all of the right shape.

    Args:
        given: arrays by the network's own names.
        wanted: shape of each weight of the network.
        source: where the weights come from, for messages.
        reset_classifier: leave out the last layer when its shape differs.

    Raises:
        DataError: a weight is missing or of another shape.
    """
    names = list(wanted)
    last_layer = names[-1].rpartition(".")[0] if names else ""
    missing = [name for name in names if name not in given]
    if missing:
        raise DataError(
            f"weights {source}: {len(missing)} of {len(names)} weights are missing, "
            f"such as {', '.join(missing[:3])}; it holds {', '.join(list(given)[:3])}, ...",
            "These are another network's weights: check /model/name and /model/width.",
        )
    differing = [name for name in names if tuple(given[name].shape) != tuple(wanted[name])]
    of_classifier = [n for n in differing if n.rpartition(".")[0] == last_layer]
    if differing and (len(of_classifier) < len(differing) or not reset_classifier):
        name = differing[0]
        found, expected = list(given[name].shape), list(wanted[name])
        hint = "These are another network's weights: check /model/name and /model/width."
        if len(of_classifier) == len(differing):
            hint = (
                "Its classifier is for another number of classes: set /model/classes to that "
                "number, or /model/reset_classifier to true to train a new one."
            )
        raise DataError(f"weights {source}: {name} has shape {found}, expected {expected}", hint)
    return {name: given[name] for name in names if name not in differing}
