"""Weights of other tools: files of PyTorch, safetensors and numpy, and their names."""

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files

from job.engine.weights.match import check_kind, read_weights
from job.engine.weights.torch_names import for_paddle
from job.errors import DataError

ARRAYS = {
    "conv1.weight": np.arange(24, dtype="float32").reshape(2, 3, 2, 2),
    "bn1.running_mean": np.array([1, 2], "float32"),
    "bn1.running_var": np.array([3, 4], "float32"),
    "bn1.num_batches_tracked": np.array(7, "int64"),
    "fc.weight": np.arange(6, dtype="float32").reshape(3, 2),
    "fc.bias": np.arange(3, dtype="float16"),
}
WANTED = {
    "conv1.weight": (2, 3, 2, 2),
    "bn1._mean": (2,),
    "bn1._variance": (2,),
    "fc.weight": (2, 3),
    "fc.bias": (3,),
}


def save_npz(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


WRITERS = {"w.pth": torch_files.save, "w.safetensors": torch_files.save_safetensors}


@pytest.mark.parametrize(
    ("name", "write"), [*WRITERS.items(), ("w.npz", save_npz)], ids=lambda each: str(each)[:9]
)
def test_arrays_of_other_tools_are_read(
    tmp_path: Path, name: str, write: Callable[..., None]
) -> None:
    path = tmp_path / name
    write(path, ARRAYS)
    assert check_kind(path)
    found = read_weights(path, None)
    assert found.is_torch == (name in WRITERS)
    assert list(found.arrays) == list(ARRAYS)
    for key, values in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[key], values)
        assert found.arrays[key].dtype == values.dtype


def test_names_and_layouts_become_paddles() -> None:
    for prefix in ("", "module."):
        given = {prefix + name: values for name, values in ARRAYS.items()}
        found = for_paddle(given, WANTED, is_torch=True)
        assert {name: values.shape for name, values in found.items()} == WANTED
        np.testing.assert_array_equal(found["fc.weight"], ARRAYS["fc.weight"].T)
        np.testing.assert_array_equal(found["bn1._variance"], ARRAYS["bn1.running_var"])


@pytest.mark.parametrize("is_torch", [True, False])
def test_the_layout_of_square_weights_follows_the_other_weights(is_torch: bool) -> None:
    square = np.arange(4.0).reshape(2, 2)
    wanted = {"a.weight": (2, 2), "b.weight": (2, 5)}
    torch = for_paddle({"a.weight": square, "b.weight": np.ones((5, 2))}, wanted, is_torch=is_torch)
    np.testing.assert_array_equal(torch["a.weight"], square.T)
    paddle = for_paddle(
        {"a.weight": square, "b.weight": np.ones((2, 5))}, wanted, is_torch=is_torch
    )
    np.testing.assert_array_equal(paddle["a.weight"], square)
    alone = for_paddle({"a.weight": square}, {"a.weight": (2, 2)}, is_torch=is_torch)
    np.testing.assert_array_equal(alone["a.weight"], square.T if is_torch else square)


def test_a_classifier_with_other_classes_keeps_its_layout() -> None:
    """Only the inputs must fit; the classes may differ because the classifier is reset."""
    found = for_paddle({"fc.weight": np.ones((1000, 512))}, {"fc.weight": (512, 7)}, is_torch=True)
    assert found["fc.weight"].shape == (512, 1000)


def test_a_checkpoint_and_columns_first_are_read(tmp_path: Path) -> None:
    columns_first = np.asfortranarray(np.arange(6, dtype="float32").reshape(2, 3))
    torch_files.save(tmp_path / "w.pth", {"epoch": 3, "state_dict": {"fc.weight": columns_first}})
    found = read_weights(tmp_path / "w.pth", None).arrays
    assert list(found) == ["fc.weight"]
    np.testing.assert_array_equal(found["fc.weight"], columns_first)


def archive(path: Path, content: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("archive/data.pkl", content)
        for name, data in members.items():
            opened.writestr(f"archive/data/{name.removeprefix('m')}", data)
    return path


def tensor(shape: bytes, strides: bytes, count: bytes = b"K\x02") -> bytes:
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + count + b"tQK\0"
    return b"\x80\x02}X\x01\0\0\0a" + call + shape + strides + b"\x89}tRs."


def test_a_tensor_of_a_few_bytes_cannot_become_large(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    ones = struct.pack("<ff", 1, 1)
    archive(path, tensor(b"K\x02\x85", b"K\x01\x85"), m0=ones)
    np.testing.assert_array_equal(read_weights(path, None).arrays["a"], [1, 1])
    archive(path, tensor(b"J\xff\xff\xff\x7f\x85", b"K\0\x85"), m0=ones)
    with pytest.raises(DataError, match="exceeds its storage"):
        read_weights(path, None)
    archive(path, tensor(b"K\x02\x85", b"K\x02\x85"), m0=ones)
    with pytest.raises(DataError, match="exceeds its storage"):
        read_weights(path, None)
    archive(path, tensor(b"K\x02\x85", b"K\x01\x85", b"K\x03"), m0=ones)
    with pytest.raises(DataError, match="expected 12 stored bytes"):
        read_weights(path, None)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    zeros = {"a": np.zeros(1 << 20, "float32")}
    torch_files.save(path, zeros, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="more bytes than the archive"):
        read_weights(path, None)


class Hostile:
    def __reduce__(self) -> Any:
        return print, ("ran",)


def test_code_in_a_torch_file_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = archive(tmp_path / "w.pth", pickle.dumps({"a": Hostile()}, protocol=2))
    with pytest.raises(DataError, match="print") as caught:
        read_weights(path, None)
    assert "state_dict" in caught.value.hint
    assert capsys.readouterr().out == ""


def header(kind: str, shape: str, offsets: str, data: bytes) -> bytes:
    text = f'{{"a":{{"dtype":"{kind}","shape":{shape},"data_offsets":{offsets}}}}}'.encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 1 << 40) + b'{"a":1}' + bytes(20),
        struct.pack("<Q", 7) + b'{"a":1}',
        struct.pack("<Q", 2) + b"{}",
        header("F32", "[2]", "[0,8]", bytes(7)),
        header("F32", "[9]", "[0,8]", bytes(8)),
        header("F32", "[-2]", "[0,8]", bytes(8)),
        header("F32", "[2]", "[8,0]", bytes(8)),
        header("F32", "[2]", '["0",8]', bytes(8)),
        header("Q32", "[2]", "[0,8]", bytes(8)),
    ],
)
def test_a_damaged_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"w\.safetensors"):
        read_weights(path, None)


def test_an_array_of_objects_and_a_bomb_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    save_npz(path, {"a": np.array([{}, 1], object)})
    with pytest.raises(DataError, match=r"w\.npz"):
        read_weights(path, None)
    with path.open("wb") as file:
        np.savez_compressed(file, a=np.zeros(1 << 22, "float32"))
    with pytest.raises(DataError, match="would expand"):
        read_weights(path, None)
