"""Writes files as torch.save and safetensors do, because the tests do not install PyTorch."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

_KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}
_NAMES = {"float32": "F32", "float16": "F16", "int64": "I64"}


class _Reference:
    """A storage, which the pickle names by a persistent id."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.described = (kind, key, count)


class _Global:
    """A global of PyTorch; pickled by name."""

    def __init__(self, module: str, name: str) -> None:
        self.name = f"{module}\n{name}\n".encode()


class _Tensor:
    def __init__(self, storage: _Reference, values: np.ndarray) -> None:
        self.storage = storage
        self.values = values


class _Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Python's pickler, which writes tensors as PyTorch does."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Reference):
            return None
        kind, key, count = value.described
        return ("storage", _Global("torch", kind), key, "cpu", count)

    def _save_global(self, value: _Global) -> None:
        self.write(pickle.GLOBAL + value.name)

    def _save_tensor(self, tensor: _Tensor) -> None:
        strides = tuple(step // tensor.values.itemsize for step in tensor.values.strides)
        self.save(_Global("torch._utils", "_rebuild_tensor_v2"))
        arguments = (tensor.storage, 0, tensor.values.shape, strides, False, OrderedDict())
        self.save(arguments)
        self.write(pickle.REDUCE)

    dispatch[_Global] = _save_global
    dispatch[_Tensor] = _save_tensor


def save(path: Path, document: Any, *, compression: int = zipfile.ZIP_STORED) -> None:
    """Write nested dictionaries of arrays as ``torch.save`` does since version 1.6."""
    storages: list[bytes] = []

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return OrderedDict((name, tensors(item)) for name, item in value.items())
        if not isinstance(value, np.ndarray):
            return value
        storages.append(value.tobytes("A"))
        kind = _KINDS[value.dtype.name]
        return _Tensor(_Reference(kind, str(len(storages) - 1), value.size), value)

    file = io.BytesIO()
    _Pickler(file, protocol=2).dump(tensors(document))
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        archive.writestr("archive/byteorder", b"little")
        for number, content in enumerate(storages):
            archive.writestr(f"archive/data/{number}", content)
        archive.writestr("archive/version", b"3\n")


def save_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write arrays as a ``.safetensors`` file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, values in tensors.items():
        data = np.ascontiguousarray(values).tobytes()
        header[name] = {
            "dtype": _NAMES[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [len(content), len(content) + len(data)],
        }
        content += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
