"""Mistakes in the model's files and keys that are found without Paddle."""

import io
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files

from job.api.model_checks import check_models
from job.engine.inference.ready_model import image_shape
from job.errors import DataError, ManifestError, UsageError
from job.manifest import parse

DATA = {"format": "class_folders", "train_dir": "train"}
MODEL = {"name": "convnet", "classes": 10, "input_shape": [3, 32, 32]}
READY = {"name": None, "inference_model": "ready"}


def check(folder: Path, model: dict[str, Any], needs_weights: bool = True, **parts: Any) -> None:
    document = {"version": 1, "name": "tiny", "model": MODEL | model, "data": DATA, **parts}
    check_models(parse(document, "m.json", folder), "m.json", needs_weights=needs_weights)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name in names:
            opened.writestr(name, b"x")
    return file.getvalue()


def program(
    inputs: dict[str, Sequence[int]],
    outputs: dict[str, Sequence[int]],
    extra: bytes = b"",
    data_type: int = 5,
) -> bytes:
    """A .pdmodel file, encoded as protobuf by hand."""

    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return bytes([number << 3]) + varint(value)
        return bytes([number << 3 | 2]) + varint(len(value)) + value

    def varint(value: int) -> bytes:
        value &= (1 << 64) - 1
        out = b""
        while value > 127:
            out += bytes([value & 127 | 128])
            value >>= 7
        return out + bytes([value])

    def variable(name: str, dims: Sequence[int]) -> bytes:
        tensor = field(1, data_type) + b"".join(field(2, size) for size in dims)
        dense = field(1, 7) + field(3, field(1, tensor))
        return field(3, field(1, name.encode()) + field(2, dense))

    def op(kind: str, source: str, target: str, column: int) -> bytes:
        def slot(name: str, variable: str) -> bytes:
            return field(1, name.encode()) + field(2, variable.encode())

        attribute = field(1, b"col") + field(2, 0) + field(3, column)
        parts = field(1, slot("X", source)) + field(2, slot("Out", target))
        return field(4, parts + field(3, kind.encode()) + field(4, attribute))

    block = field(1, 0) + field(2, -1)
    block += b"".join(variable(name, dims) for name, dims in (inputs | outputs).items())
    # In reverse order, because the column gives the order.
    for place, name in reversed([*enumerate(inputs)]):
        block += op("feed", "feed", name, place)
    for place, name in reversed([*enumerate(outputs)]):
        block += op("fetch", name, "fetch", place)
    return field(1, block) + extra


IMAGE = {"image": [-1, 3, 32, 32]}
SCORES = {"scores": [-1, 10]}
PROGRAM = program(IMAGE, SCORES)
PDIPARAMS = struct.pack("<IQIi", 0, 0, 0, 4) + b"\x08\x05\x10\x02" + bytes(8)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("model.pdmodel", PROGRAM, "Paddle program"),
        ("w.pdparams", PDIPARAMS, r"\.pdiparams"),
        ("w.pth", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "legacy"),
        ("w.zip", zipped("a.txt"), "zip"),
        ("w.onnx", b"\x08\x07\x12\x07pytorch\x1a\x052.0.0", "ONNX"),
        ("w.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("w.npy", b"\x93NUMPY\x01\0", r"\.npy"),
        ("w.pdparams", b"<!DOCTYPE html><html></html>", "HTML"),
        ("w.pdparams", b"\n <HTML lang=en>", "HTML"),
        ("w.pdparams", b'<?xml version="1.0"?><Error/>', "XML"),
        ("w.pdparams", b'{"message": "Not Found"}', "JSON"),
        ("w.pdparams", b"version https://git-lfs.github.com/spec/v1\noid", "LFS"),
        ("w.pdparams", b"\x1f\x8b\x08", "gzip"),
        ("w.pdparams", b"", "empty"),
    ],
)
def test_a_weights_file_of_another_kind_is_named(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*{kind}"):
        check(tmp_path, {"weights": name})


def test_a_torch_file_is_for_networks_by_name(tmp_path: Path) -> None:
    torch_files.save(tmp_path / "w.pth", {"a": np.zeros(2, "float32")})
    check(tmp_path, {"weights": "w.pth"})
    (tmp_path / "nets.py").write_text("def network(): ...")
    with pytest.raises(DataError, match=r"w\.pth: .*PyTorch.*/model/name"):
        check(tmp_path, {"name": None, "callable": "nets:network", "weights": "w.pth"})


def module_archive() -> bytes:
    """A whole module, as torch.save(network) writes it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("w/data.pkl", b"\x80\x02ctorchvision.models.resnet\nResNet\n)\x81.")
        opened.writestr("w/data/0", bytes(8))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("w.pth", module_archive(), r"torchvision\.models\.resnet\.ResNet"),
        ("w.pdparams", b"\x80\x02cos\nsystem\n(X\x02\0\0\0lstR.", r"os\.system"),
        ("w.pdparams", b"\x80\x04}.", "no arrays"),
        ("w.pdparams", b"no pickle at all", r"cannot be read"),
        ("w.npz", zipped("a.npy"), "no arrays"),
    ],
)
def test_what_a_stage_would_reject_is_rejected(
    tmp_path: Path, name: str, content: bytes, found: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*{found}"):
        check(tmp_path, {"weights": name})


@pytest.mark.parametrize("given", ["export", "export/net.onnx"])
def test_an_onnx_model_is_no_inference_model(tmp_path: Path, given: str) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/net.onnx").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.0.0")
    with pytest.raises(DataError, match=r"inference_model .*net\.onnx: .*ONNX"):
        check(tmp_path, {"name": None, "inference_model": given})


@pytest.mark.parametrize("given", ["export", "export/__model__"])
def test_a_model_of_paddle_1_is_no_inference_model(tmp_path: Path, given: str) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/__model__").write_bytes(PROGRAM)
    with pytest.raises(DataError, match=r"inference_model .*export/__model__: .*Paddle 1"):
        check(tmp_path, {"name": None, "inference_model": given})
    shutil.copy(tmp_path / "export/__model__", tmp_path / "export/model.pdmodel")
    check(tmp_path, {"name": None, "inference_model": "export"})


def test_torchvisions_squeezenet_is_rejected(tmp_path: Path) -> None:
    weights = {"features.3.squeeze.weight": np.zeros(2, "float32")}
    torch_files.save(tmp_path / "w.pth", weights)
    with pytest.raises(DataError, match=r"w\.pth: .*squeezenet1_1"):
        check(tmp_path, {"name": "squeezenet1_1", "weights": "w.pth"})


def test_missing_files_are_left_to_the_plan(tmp_path: Path) -> None:
    check(tmp_path, {"weights": "none.pdparams"})
    check(tmp_path, {"weights": "s3://bucket/w.pdparams"})
    check(tmp_path, READY)


def test_a_folder_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with pytest.raises(DataError, match=str(tmp_path)):
        check(tmp_path, {"weights": "w"})


@pytest.mark.parametrize(
    "content",
    [
        PROGRAM,
        program({"x": [-1, -1, -1, -1]}, SCORES),
        program({"x": [1, 3, 32, 32]}, {"a": [1, 10], "b": [-1, 5, 5]}),
    ],
)
def test_a_classifier_is_accepted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ready.pdmodel").write_bytes(content)
    check(tmp_path, READY)


@pytest.mark.parametrize("image", [[-1, 3, 608, 608], [-1, 3, -1, -1]])
def test_the_shape_of_the_image_is_read_beside_other_inputs(tmp_path: Path, image: Any) -> None:
    inputs = {"im_shape": [-1, 2], "image": image, "scale_factor": [-1, 2]}
    (tmp_path / "model.pdmodel").write_bytes(program(inputs, {"boxes": [-1, 6]}))
    assert image_shape(tmp_path / "model.pdmodel") == image[1:]
    (tmp_path / "model.pdmodel").write_bytes(program({"im_shape": [-1, 2]}, SCORES))
    with pytest.raises(DataError, match=r"model\.pdmodel"):
        image_shape(tmp_path / "model.pdmodel")


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (program(IMAGE, {"masks": [-1, 19, 64, 64]}), r"\[-1, 19, 64, 64\].*no classifier", ""),
        (program(IMAGE, {"boxes": [-1, 6, 100]}), r"\[-1, 6, 100\].*no classifier", ""),
        (program(IMAGE, {"boxes": [-1]}), r"\[-1\].*no classifier", ""),
        (program(IMAGE, {"scores": [-1, 4]}), r"\[-1, 4\].*\[-1, 10\]", "/model/classes to 4"),
        (
            program({"im_shape": [-1, 2], "image": [-1, 3, 32, 32]}, SCORES),
            "'im_shape', 'image'.*no image classifier",
            "",
        ),
        (program({"text": [-1, 128]}, SCORES), r"\[-1, 128\].*no images", ""),
        (program({"x": [-1, 3, 224, 224]}, SCORES), r"\[-1, 3, 224, 224\]", "/model/input_shape"),
        (program({"x": [-1, 32, 32, 3]}, SCORES), r"\[-1, 32, 32, 3\]", "channels last"),
        (program(IMAGE, {"score": [-1, 1]}), r"\[-1, 1\].*\[-1, 10\]", "/task"),
        (program(IMAGE, {}), "no image classifier", ""),
        (program(IMAGE, SCORES, data_type=20), "UINT8.*FP32", "normalized"),
        (b"", "empty", ""),
        (b"<html></html>", "HTML", ""),
        (PROGRAM[:-3], "damaged", ""),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0", "ONNX", ""),
    ],
)
def test_a_ready_model_that_is_no_classifier_is_described(
    tmp_path: Path, content: bytes, message: str, hint: str
) -> None:
    (tmp_path / "ready").mkdir()
    (tmp_path / "ready/inference.pdmodel").write_bytes(content)
    with pytest.raises(DataError, match=rf"inference\.pdmodel: .*{message}") as caught:
        check(tmp_path, READY)
    assert hint in caught.value.hint
    assert ("/model/classes" in caught.value.hint) == ("/model/classes" in hint)


FORGOTTEN = "/model/weights"


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ({"weights": "w"}, {}),
        ({"name": "resnet18", "pretrained": True}, {}),
        ({"random_weights": True}, {}),
        (READY, {}),
        ({}, {"baseline": {"train": {"epochs": 1}}}),
        ({}, {"baseline": {"train": {"max_iters": 3}}}),
        ({}, {"data": {"format": "synthetic"}, "quantize": {"strategy": "post"}}),
    ],
)
def test_weights_that_are_given_or_trained(
    tmp_path: Path, model: dict[str, Any], parts: dict[str, Any]
) -> None:
    check(tmp_path, model, **parts)


@pytest.mark.parametrize("model", [{}, {"name": None, "callable": "nets:network"}])
@pytest.mark.parametrize("train", [{}, {"epochs": 5, "max_iters": 0}])
def test_forgotten_weights_are_rejected(
    tmp_path: Path, model: dict[str, Any], train: dict[str, Any]
) -> None:
    (tmp_path / "nets.py").write_text("def network(): ...")
    baseline = {"train": train}
    with pytest.raises(ManifestError) as caught:
        check(tmp_path, model, baseline=baseline)
    assert [fault.pointer for fault in caught.value.faults] == [FORGOTTEN]
    check(tmp_path, model, needs_weights=False, baseline=baseline)


def test_forgotten_weights_of_each_model_of_a_matrix(tmp_path: Path) -> None:
    names = {"a": {"model.width": 2}, "b": {"model.weights": "w"}, "c": {"model.width": 0.5}}
    matrix = [{"name": name, "set": changes} for name, changes in names.items()]
    with pytest.raises(ManifestError) as caught:
        check(tmp_path, {}, matrix=matrix)
    assert [fault.pointer for fault in caught.value.faults] == ["/matrix/0/set", "/matrix/2/set"]
    assert all(FORGOTTEN in fault.message for fault in caught.value.faults)


def test_a_callable_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="/model/callable"):
        check(tmp_path, {"name": None, "callable": "none:network", "random_weights": True})


def test_nothing_imports_paddle(tmp_path: Path) -> None:
    (tmp_path / "ready.pdmodel").write_bytes(PROGRAM)
    document = {"version": 1, "name": "tiny", "model": MODEL | READY, "data": DATA}
    (tmp_path / "m.json").write_text(json.dumps(document))
    code = (
        "import sys; from job.manifest import load; from job.api.model_checks import check_models; "
        "check_models(load('m.json'), 'm.json'); print('paddle' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
