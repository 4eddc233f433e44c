"""Reads a ``.safetensors`` file: a JSON header, then the bytes of the tensors.

Format: the length of the header (uint64, little-endian), the header with dtype, shape and byte
range of each tensor, and the bytes. https://huggingface.co/docs/safetensors
"""

import json
import math
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ELEMENTS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "?",
}
# The limit of the format.
_MOST_HEADER_BYTES = 100_000_000


def read_safetensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; BF16 as float32.

    Raises:
        UnpicklingError: the file is damaged or has an unknown element type.
    """
    length = int.from_bytes(content[:8], "little")
    if length > min(_MOST_HEADER_BYTES, len(content) - 8):
        raise UnpicklingError("the header is incomplete")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise UnpicklingError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise UnpicklingError("the header is not a JSON object")
    data = memoryview(content)[8 + length :]
    return {
        name: _tensor(name, described, data)
        for name, described in header.items()
        if name != "__metadata__"
    }


def _tensor(name: str, described: Any, data: memoryview) -> NDArray[Any]:
    match described:
        case {"dtype": str() as kind, "shape": list() as shape, "data_offsets": [low, high]} if (
            type(low) is type(high) is int
        ):
            pass
        case _:
            raise UnpicklingError(f"{name}: unknown description of a tensor")
    if kind not in _ELEMENTS:
        raise UnpicklingError(f"{name}: unknown element type {kind[:20]!r}")
    dtype = np.dtype(_ELEMENTS[kind])
    sizes = all(type(size) is int and size >= 0 for size in shape) and len(shape) <= 32
    if not sizes or not 0 <= low <= high <= len(data):
        raise UnpicklingError(f"{name}: the tensor exceeds the file")
    if math.prod(shape) * dtype.itemsize != high - low:
        raise UnpicklingError(f"{name}: {high - low:,} bytes do not fill the shape {shape}")
    values = np.frombuffer(data[low:high], dtype).reshape(shape)
    return (values.astype("<u4") << 16).view("<f4") if kind == "BF16" else values
