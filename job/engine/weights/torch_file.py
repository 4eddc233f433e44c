"""Reads the tensors of a PyTorch file (``torch.save``, zip format) without running its pickle.

The file is a zip archive. Its ``data.pkl`` describes each tensor: name, shape, strides and the
number of a storage. The elements of storage N are the bytes of the member ``data/N``.
Format: torch/csrc/jit/serialization and torch/serialization.py of PyTorch 1.6 and later.
"""

import io
import math
import zipfile
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.engine.weights.safe_pickle import array, load

_BFLOAT16 = "bfloat16"
# Element type of each storage class, in numpy's notation.
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
_REBUILD = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = ("torch._utils", "_rebuild_parameter")
_SIZE = ("torch", "Size")
# data.pkl of a network of a thousand tensors has about 200 kB.
_MOST_PICKLE_BYTES = 64 << 20


class _Tensors:
    """What a PyTorch pickle contains besides plain objects; see ``safe_pickle.Foreign``."""

    names = frozenset({_REBUILD, _PARAMETER, _SIZE, *(("torch", name) for name in _STORAGES)})

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder
        self._storages: dict[str, NDArray[Any]] = {}

    def called(self, name: tuple[str, str], arguments: tuple[Any, ...]) -> Any:
        """Return a tensor as an array, or a shape."""
        if name == _REBUILD and len(arguments) >= 4:
            storage, offset, shape, strides = arguments[:4]
            return array(_view(storage, offset, shape, strides))
        if name == _PARAMETER and arguments:
            return arguments[0]
        if name == _SIZE and len(arguments) == 1 and isinstance(arguments[0], list | tuple):
            return tuple(arguments[0])
        raise UnpicklingError(f"the pickle calls {'.'.join(name)} with unexpected arguments")

    def persistent(self, reference: Any) -> Any:
        """Return the elements of the storage ("storage", class, key, device, count)."""
        match reference:
            case ("storage", kind, str() as key, str(), int() as count) if count >= 0:
                element = _STORAGES.get(getattr(kind, "name", ""), "")
                if element:
                    return self._storage(key, element, count)
        raise UnpicklingError("a storage has an unknown element type")

    def _storage(self, key: str, element: str, count: int) -> NDArray[Any]:
        if key not in self._storages:
            dtype = np.dtype("<u2" if element == _BFLOAT16 else element)
            size = count * dtype.itemsize
            content = _member(self._archive, f"{self._folder}data/{key}", size)
            values = np.frombuffer(content, dtype)
            if element == _BFLOAT16:
                values = (values.astype("<u4") << 16).view("<f4")
            self._storages[key] = values
        return self._storages[key]


def _member(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """Return a stored member of an archive, of the given size in bytes."""
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise UnpicklingError(f"the archive has no member {name}") from error
    # A compressed member could expand to any size; torch.save compresses nothing.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != size:
        raise UnpicklingError(f"{name}: expected {size:,} stored bytes, found {info.file_size:,}")
    return archive.read(info)


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> NDArray[Any]:
    """Return the tensor of a shape and strides (in elements) in a storage."""
    if (
        not isinstance(storage, np.ndarray)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or len(shape) != len(strides)
        or len(shape) > 32
        or not all(type(each) is int and each >= 0 for each in (offset, *shape, *strides))
    ):
        raise UnpicklingError("unknown description of a tensor")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, storage.dtype)
    # A stride of 0 could repeat one element without limit.
    if last >= len(storage) or count > len(storage):
        raise UnpicklingError(f"a tensor of shape {list(shape)} exceeds its storage")
    in_bytes = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, in_bytes, writeable=False)


def read_torch(content: bytes) -> Any:
    """Return the object in a PyTorch file; tensors as in ``safe_pickle.load``.

    Args:
        content: a file that ``torch.save`` wrote in its zip format.

    Raises:
        UnpicklingError: the file is damaged, or contains other objects than tensors in plain
            containers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(names) != 1:
                raise UnpicklingError(f"the archive has {len(names)} members data.pkl, expected 1")
            if sum(info.file_size for info in archive.infolist()) > len(content):
                # Entries of a zip archive can overlap, and each of them would be copied.
                raise UnpicklingError("the members have more bytes than the archive")
            folder = names[0].removesuffix("data.pkl")
            order = f"{folder}byteorder"
            if order in archive.namelist() and _member(archive, order, 6) != b"little":
                raise UnpicklingError("the tensors are not little-endian")
            size = min(archive.getinfo(names[0]).file_size, _MOST_PICKLE_BYTES)
            return load(_member(archive, names[0], size), _Tensors(archive, folder))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError) as error:
        raise UnpicklingError(str(error) or "the zip archive is damaged") from error
