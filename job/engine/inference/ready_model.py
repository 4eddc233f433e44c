"""Checks the saved model of a manifest without importing Paddle, so that planning can reject it."""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from job.errors import DataError
from job.storage.file_kinds import PADDLE_PROGRAM, model_kind_of
from job.storage.files import open_regular

_NOT_SUPPORTED = (
    "Set /model/inference_model to a classifier with one image input and scores [N, classes]. Set "
    "/task to outputs for a model with other outputs, such as segmentation."
)
# Batch, channels, height, width.
_IMAGE_DIMENSIONS = 4


def check_ready_model(path: Path, classes: int | None, input_shape: Sequence[int]) -> None:
    """Check the inputs of a ``.pdmodel`` file, and the first output of a classifier.

    Args:
        path: the file.
        classes: expected number of classes; None for a model with any outputs.
        input_shape: (channels, height, width) of the images.

    Raises:
        DataError: the file is no Paddle program, the model does not read images, it is no image
            classifier, or it has another number of classes or another input shape.
        OSError: the file cannot be read.
    """
    program = read_ready_model(path)
    block = program.blocks[0]
    tensors = {each.name: each.type.dense_tensor.tensor for each in block.vars}
    inputs = [_names(op.outputs) for op in _ordered(block.ops, "feed")]
    outputs = [_names(op.inputs) for op in _ordered(block.ops, "fetch")]
    if classes is None:
        images = [name for name in inputs if len(tensors[name].dims) == _IMAGE_DIMENSIONS]
        if len(images) != 1 or not outputs:
            raise DataError(
                f"{path}: expected exactly one input [N, channels, height, width] and an output; "
                f"found inputs {inputs} and outputs {outputs}",
                "Give a model that reads one batch of images.",
            )
        _check_image(path, tensors[images[0]], input_shape)
        return
    if len(inputs) != 1 or not outputs or {*inputs, outputs[0]} - tensors.keys():
        raise DataError(
            f"{path}: expected one image input and an output of scores; found inputs {inputs} and "
            f"outputs {outputs}, so the model is no image classifier",
            _NOT_SUPPORTED,
        )
    shape = list(tensors[outputs[0]].dims)
    if len(shape) != 2:
        raise DataError(
            f"{path}: the model's output has shape {shape}, which is not [N, classes], so the "
            "model is no classifier",
            _NOT_SUPPORTED,
        )
    if shape[1] not in (-1, classes):
        raise DataError(
            f"{path}: the model's output has shape {shape}, expected [-1, {classes}]",
            f"Set /model/classes to {shape[1]}." if shape[1] > 1 else _NOT_SUPPORTED,
        )
    _check_image(path, tensors[inputs[0]], input_shape)


def image_shape(path: Path) -> list[int]:
    """Return [channels, height, width] of a program's image input; -1 if a size is not fixed.

    Exported detectors also have inputs of two dimensions.

    Raises:
        DataError: the file is no Paddle program, or has not one image input.
        OSError: the file cannot be read.
    """
    block = read_ready_model(path).blocks[0]
    tensors = {each.name: each.type.dense_tensor.tensor for each in block.vars}
    inputs = [_names(op.outputs) for op in _ordered(block.ops, "feed")]
    shapes = [list(tensors[name].dims) for name in inputs if name in tensors]
    # Detectors also have inputs for the size and the scale of the image.
    images = [shape for shape in shapes if len(shape) == _IMAGE_DIMENSIONS]
    if len(images) != 1:
        raise DataError(f"{path}: expected one image input, found {shapes}", _NOT_SUPPORTED)
    return images[0][1:]


def _check_image(path: Path, tensor: Any, input_shape: Sequence[int]) -> None:
    shape = list(tensor.dims)
    if tensor.data_type != _messages().VarType.FP32:
        raise DataError(
            f"{path}: the model's input has the data type "
            f"{_messages().VarType.Type.Name(tensor.data_type)}, expected FP32",
            "Export the network with an input of float32 [N, channels, height, width] that is "
            "normalized. The job normalizes images by /data/mean and /data/std.",
        )
    if len(shape) != 4:
        raise DataError(
            f"{path}: the model's input has shape {shape}, which is not [N, channels, height, "
            "width], so the model reads no images",
            _NOT_SUPPORTED,
        )
    if not _fits(shape[1:], input_shape):
        channels_last = _fits(shape[1:], [*input_shape[1:], input_shape[0]])
        raise DataError(
            f"{path}: the model's input has shape {shape}, but /model/input_shape is "
            f"{list(input_shape)}",
            "The model reads images with the channels last. Export the model with an input of "
            "[N, channels, height, width]."
            if channels_last
            else "Set /model/input_shape to [channels, height, width] of the model.",
        )


def _fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    """Return whether sizes are equal, as far as the model fixes them."""
    return all(given in (-1, wanted) for given, wanted in zip(shape, expected, strict=True))


def read_ready_model(path: Path) -> Any:
    """Return a ``.pdmodel`` file as a ``ProgramDesc`` message, without importing Paddle.

    Raises:
        DataError: the file is no Paddle program.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        content = file.read()
    program = _messages().ProgramDesc()
    try:
        program.ParseFromString(content)
    except DecodeError:
        program.Clear()
    if not program.blocks or not program.blocks[0].ops:
        kind = model_kind_of(path) or "another kind of file"
        found = "a damaged program" if kind == PADDLE_PROGRAM else kind
        raise DataError(
            f"{path}: expected a Paddle program, found {found}",
            "Export the model with paddle.static.save_inference_model.",
        )
    return program


@cache
def _messages() -> Any:
    """Return Paddle's message classes; their module is loaded without the package around it."""
    package = importlib.util.find_spec("paddle")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'paddle'", name="paddle")
    file = Path(package.submodule_search_locations[0]) / "base/proto/framework_pb2.py"
    spec = importlib.util.spec_from_file_location("job.engine.inference.framework_pb2", file)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"cannot load {file}", name="paddle")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _ordered(ops: Sequence[Any], kind: str) -> list[Any]:
    """Return the feed or fetch ops in the order of the model's inputs or outputs."""
    of_kind = [op for op in ops if op.type == kind]
    return sorted(of_kind, key=lambda op: next((a.i for a in op.attrs if a.name == "col"), 0))


def _names(slots: Sequence[Any]) -> str:
    """Return the name of the variable that a feed or fetch op copies."""
    by_slot = {slot.parameter: list(slot.arguments) for slot in slots}
    return next(iter(by_slot.get("Out") or by_slot.get("X") or [""]))
