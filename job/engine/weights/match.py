"""Reads weight files, verifies their checksum and matches their arrays to a network."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from numpy.typing import NDArray

from job.engine.weights.safe_pickle import array_of, load
from job.errors import DataError
from job.storage.file_kinds import model_kind_of
from job.storage.files import open_regular

# The largest vision models have about 10 GB of weights.
MAX_BYTES = 32 << 30
_OTHER_NETWORK = (
    "The file belongs to another network than the manifest's: check /model/name and /model/width."
)


def read_pdparams(path: Path, sha256: str | None) -> dict[str, NDArray[Any]]:
    """Read the arrays of a ``.pdparams`` file, without running code from the file.

    Args:
        path: the file.
        sha256: expected SHA-256 checksum, hexadecimal; None skips the check.

    Returns:
        The arrays by the names that the network gives its weights.

    Raises:
        DataError: the file is missing, corrupt or too large, has another checksum, or
            contains other objects than arrays.
    """
    content = _content(path)
    checksum = hashlib.sha256(content).hexdigest()
    if sha256 is not None and checksum != sha256:
        raise DataError(
            f"weights {path}: SHA-256 is {checksum}, expected {sha256}",
            "Download the file again, or correct /model/weights_sha256.",
        )
    check_kind(path)
    try:
        document = load(content)
    except UnpicklingError as error:
        raise DataError(
            f"weights {path}: cannot be read as a .pdparams file: {error}",
            "Save the weights again with paddle.save(network.state_dict(), path).",
        ) from error
    return arrays_of(document, path)


def check_kind(path: Path) -> None:
    """Reject a file that is recognized as something else than a ``.pdparams`` file.

    Raises:
        DataError: the message names the kind of the file.
        OSError: the file cannot be read.
    """
    kind = model_kind_of(path)
    if kind:
        raise DataError(
            f"weights {path}: expected a .pdparams file, found {kind}",
            "For the weights of a run of this job, name its fp32/weights.pdparams. Save other "
            "weights with paddle.save(network.state_dict(), path). Set a saved inference model in "
            "/model/inference_model instead.",
        )


def _content(path: Path) -> bytes:
    """Return the content of a regular file of at most ``MAX_BYTES``.

    Raises:
        DataError: the file cannot be read, is not a regular file, or is too large.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise DataError(
                    f"weights {path}: the file has {size:,} bytes; the limit is {MAX_BYTES:,}",
                    "Check /model/weights.",
                )
            return file.read()
    except OSError as error:
        raise DataError(
            f"weights {path}: {error.strerror or error}", "Check /model/weights."
        ) from error
    except MemoryError as error:
        raise DataError(
            f"weights {path}: the file has {size:,} bytes, which do not fit into memory",
            "Check /model/weights, or use a machine with more memory.",
        ) from error


def arrays_of(document: Any, path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a document by name.

    ``paddle.save`` stores a tensor as an array or as (name, array).

    Raises:
        DataError: the document is not a dictionary or contains no array.
    """
    if not isinstance(document, Mapping):
        raise DataError(f"weights {path}: expected arrays by name, found {type(document).__name__}")
    arrays = {}
    for key, value in document.items():
        named = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        array = array_of(named)
        if array is not None:
            arrays[str(key)] = array
    if not arrays:
        raise DataError(
            f"weights {path}: the file contains no arrays",
            "Name a file of weights, not of optimizer state.",
        )
    return arrays


def match(
    given: Mapping[str, NDArray[Any]],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    source: str,
    reset_classifier: bool,
) -> dict[str, NDArray[Any]]:
    """Select the arrays that a network needs and check their shapes.

    Args:
        given: arrays by the names that the network gives its weights.
        wanted: expected shape of each weight of the network.
        source: file of the weights, for messages.
        reset_classifier: omit the last layer if its shape differs.

    Returns:
        The arrays by name; without the last layer if it is reset.

    Raises:
        DataError: a weight is missing or has another shape.
    """
    names = list(wanted)
    last_layer = names[-1].rpartition(".")[0] if names else ""
    missing = [name for name in names if name not in given]
    if missing:
        raise DataError(
            f"weights {source}: {len(missing)} of {len(names)} weights are missing, "
            f"such as {', '.join(missing[:3])}; the file holds {', '.join(list(given)[:3])}, ...",
            _OTHER_NETWORK,
        )
    differing = [name for name in names if tuple(given[name].shape) != tuple(wanted[name])]
    of_classifier = [n for n in differing if n.rpartition(".")[0] == last_layer]
    if differing and (len(of_classifier) < len(differing) or not reset_classifier):
        name = differing[0]
        shape, expected = list(given[name].shape), list(wanted[name])
        hint = _OTHER_NETWORK
        if len(of_classifier) == len(differing):
            hint = (
                "The file's classifier has another number of classes. Set /model/classes to that "
                "number, or set /model/reset_classifier to true to train a new classifier."
            )
        raise DataError(f"weights {source}: {name} has shape {shape}, expected {expected}", hint)
    return {name: given[name] for name in names if name not in differing}
