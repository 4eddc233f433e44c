"""Reads weight files, verifies their checksum and matches their arrays to a network."""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.engine.weights.safe_pickle import array_of, load
from job.engine.weights.safetensors_file import read_safetensors
from job.engine.weights.torch_file import read_torch
from job.errors import DataError
from job.storage.file_kinds import NPZ, ONNX, SAFETENSORS, TORCH, TORCH_LEGACY, model_kind_of
from job.storage.files import open_regular
from job.text_format import shortened

# The largest vision models have about 10 GB of weights.
MAX_BYTES = 32 << 30
_OTHER_NETWORK = (
    "The file belongs to another network than the manifest's: check /model/name and /model/width."
)


# Compressed arrays of a file may have at most this multiple of the file's size.
_MOST_EXPANSION = 200
# Keys under which training programs for PyTorch save the weights.
_STATE_KEYS = ("state_dict", "model_state_dict", "model")
_SAVE_STATE = "Save the weights again with torch.save(network.state_dict(), path)."
_RECIPES = {
    TORCH_LEGACY: "Load the file with PyTorch, then save it in the zip format, which is the "
    "default since version 1.6: torch.save(torch.load(path, weights_only=True), path).",
    ONNX: "Save the weights in the tool that made the ONNX model. For a network of /model/name, "
    "run torch.save(network.state_dict(), 'weights.pth') in PyTorch, and set /model/weights to "
    "this file. Export any other network to Paddle's inference format, and set "
    "/model/inference_model.",
}
_RECIPE = (
    "/model/weights accepts .pdparams, .pth (zip format), .safetensors and .npz. Save the weights "
    "of a Paddle network with paddle.save(network.state_dict(), path). Set a saved inference model "
    "in /model/inference_model instead."
)


@dataclass(frozen=True)
class Weights:
    """The arrays of a file of weights.

    Attributes:
        arrays: arrays by the names in the file.
        is_torch: whether names and layouts are usually PyTorch's.
    """

    arrays: Mapping[str, NDArray[Any]]
    is_torch: bool


def read_weights(path: Path, sha256: str | None) -> Weights:
    """Read the arrays of a file of weights, without running code from the file.

    Args:
        path: the file.
        sha256: expected SHA-256 checksum, hexadecimal; None skips the check.

    Returns:
        The arrays and their origin.

    Raises:
        DataError: the file is missing, corrupt or too large, has another checksum, or
            contains other objects than arrays.
    """
    content = _content(path)
    if sha256 is not None and (checksum := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(
            f"weights {path}: SHA-256 is {checksum}, expected {sha256}",
            "Download the file again, or correct /model/weights_sha256.",
        )
    kind = check_kind(path)
    try:
        document = _document(content, kind)
    except UnpicklingError as error:
        raise DataError(
            f"weights {path}: cannot be read as {kind or 'a .pdparams file'}: {error}",
            _SAVE_STATE
            if kind == TORCH
            else "Save the weights again with paddle.save(network.state_dict(), path).",
        ) from error
    is_torch = kind in (TORCH, SAFETENSORS)
    return Weights(arrays_of(_state(document) if is_torch else document, path), is_torch)


def _document(content: bytes, kind: str) -> Any:
    if kind == TORCH:
        return read_torch(content)
    if kind == SAFETENSORS:
        return read_safetensors(content)
    if kind == NPZ:
        return _read_npz(content)
    return load(content)


def _read_npz(content: bytes) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            expanded = sum(info.file_size for info in archive.infolist())
        if expanded > _MOST_EXPANSION * len(content):
            raise UnpicklingError(f"{len(content):,} bytes would expand to {expanded:,}")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UnpicklingError(str(error) or "the archive is damaged") from error


def _state(document: Any) -> Any:
    """Return the weights inside a training checkpoint, or the document itself."""
    if isinstance(document, Mapping):
        for key in _STATE_KEYS:
            if isinstance(document.get(key), Mapping):
                return document[key]
    return document


def check_kind(path: Path) -> str:
    """Return the kind of a file of weights; reject a file that cannot be read as weights.

    Returns:
        ``TORCH``, ``SAFETENSORS`` or ``NPZ``; empty for a pickle, as in ``.pdparams`` files.

    Raises:
        DataError: the message names the kind of the file and how to convert it.
        OSError: the file cannot be read.
    """
    kind = model_kind_of(path)
    if kind and kind not in (TORCH, SAFETENSORS, NPZ):
        raise DataError(
            f"weights {path}: expected a file of weights, found {kind}",
            _RECIPES.get(kind, _RECIPE),
        )
    return kind


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
        raise DataError(
            f"weights {path}: expected arrays by name, found {type(document).__name__}",
            "Save the weights with paddle.save(network.state_dict(), path).",
        )
    arrays = {}
    for key, value in document.items():
        named = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        array = named if isinstance(named, np.ndarray) else array_of(named)
        if array is not None:
            arrays[str(key)] = array
    if not arrays:
        raise DataError(
            f"weights {path}: the file contains no arrays",
            "Set /model/weights to a file of weights, not of optimizer state.",
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
        unused = [name for name in given if name not in wanted]
        raise DataError(
            f"weights {source}: {len(missing)} of {len(names)} weights are missing: "
            f"{shortened(missing)}. The file has {len(unused)} other arrays: {shortened(unused)}",
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
