"""Weights files: read without running code, checked against their digest."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from numpy.typing import NDArray

from job.engine.weights.safe_pickle import array_of, load
from job.errors import DataError
from job.storage.files import open_regular

# The largest vision models have some 10 GB.
MAX_BYTES = 32 << 30
_ZIP = b"PK\x03\x04"


def read_pdparams(path: Path, sha256: str | None) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.pdparams`` file by the network's own names.

    Args:
        path: the file.
        sha256: its expected digest, hexadecimal, or None.

    Raises:
        DataError: missing, of another digest, corrupt, or holding more than arrays.
    """
    content = _content(path)
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise DataError(
            f"weights {path}: SHA-256 is {found}, expected {sha256}",
            "The file is damaged or another one; fetch it again or correct /model/weights_sha256.",
        )
    if content.startswith(_ZIP):
        raise DataError(
            f"weights {path}: a zip file, such as .npz or PyTorch's; expected a .pdparams file",
            "Of a run of this job, name fp32/weights.pdparams; others save theirs with "
            "paddle.save(network.state_dict(), path).",
        )
    try:
        document = load(content)
    except UnpicklingError as error:
        raise DataError(
            f"weights {path}: not a .pdparams file of arrays: {error}",
            "Save it anew with paddle.save(network.state_dict(), path).",
        ) from error
    return arrays_of(document, path)


def _content(path: Path) -> bytes:
    """All of a file, if it is none of those that never end."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise DataError(
                    f"weights {path}: {size:,} bytes, more than the limit of {MAX_BYTES:,}",
                    "Check /model/weights.",
                )
            return file.read()
    except OSError as error:
        raise DataError(
            f"weights {path}: {error.strerror or error}", "Check /model/weights."
        ) from error
    except MemoryError as error:
        raise DataError(
            f"weights {path}: {size:,} bytes, more than this machine's memory",
            "Check /model/weights, or use a machine with more memory.",
        ) from error


def arrays_of(document: Any, path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by name; paddle.save keeps a tensor as an array or as (name, array)."""
    if not isinstance(document, Mapping):
        raise DataError(f"weights {path}: expected arrays by name, found {type(document).__name__}")
    arrays = {}
    for key, value in document.items():
        named = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        array = array_of(named)
        if array is not None:
            arrays[str(key)] = array
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
