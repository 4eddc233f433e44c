"""Reads the kind, the inputs and the outputs of a saved model from its program."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from job.engine.inference.paddle_format import OpDesc, ProgramDesc, VarType, read_program
from job.errors import DataError

# File name of a model, without suffix, in the output folder of its stage.
PREFIX = "model"
# Program of the network alone, beside the model of a detector that also decodes boxes.
NETWORK = "network.pdmodel"
FP32, FAKE_QUANTIZED, INT8 = "fp32", "fake_quantized", "int8"
# A program for Paddle's OpenVINO engine. Other kernels compute wrong scores without an error.
PADDLE_OPENVINO = "paddle_openvino"
# End of the name of a zero point that Paddle's own kernels ignore.
UNSIGNED_ZERO_POINT = "@unsigned_zero_point"
ACCURACY, TOP_K = "accuracy", ("top_k", "top_k_v2")
FAKE_OPS = ("quantize_linear", "dequantize_linear", "fake_")
INTEGERS = (VarType.INT64, VarType.INT32)


@dataclass(frozen=True)
class SavedModel:
    """A classifier on disk.

    Attributes:
        kind: ``fp32``, ``fake_quantized``, ``int8`` or ``paddle_openvino``.
        image: name of the image input.
        input_shape: (channels, height, width); -1 stands for any size.
        label: name of the label input; None without an accuracy layer.
        label_rank: 2 for labels [N, 1], 1 for labels [N], 0 without an accuracy layer.
        classes: number of classes.
        scores: name of the score output [N, classes]; None with an accuracy layer.
        accuracies: names of the outputs for top-1 and, if the model has one, top-5; empty without
            an accuracy layer.
    """

    kind: str
    image: str
    input_shape: tuple[int, int, int]
    label: str | None
    label_rank: int
    classes: int
    scores: str | None
    accuracies: tuple[str, ...]


def read_saved_model(prefix: Path) -> SavedModel:
    """Describe ``prefix``.pdmodel.

    Raises:
        DataError: the file is missing or corrupt, or the model is not an image classifier.
    """
    path = Path(f"{prefix}.pdmodel")
    program = checked_program(path)
    ops = program.blocks[0].ops
    inputs = [names(op.outputs, "Out")[0] for op in ordered(ops, "feed")]
    outputs = [names(op.inputs, "X")[0] for op in ordered(ops, "fetch")]
    variables = Variables(program, path)
    labels = [name for name in inputs if variables.dtype(name) in INTEGERS]
    images = [name for name in inputs if name not in labels]
    accuracies = accuracy_outputs(ops, outputs)
    if len(images) != 1 or len(labels) > 1 or not outputs or bool(labels) != (1 in accuracies):
        raise DataError(
            f"{path}: expected one image input, and labels only with accuracy outputs; "
            f"found inputs {listed(inputs)} and outputs {listed(outputs)}",
            "Save the classifier with scores as its output, or with top_k and accuracy layers.",
        )
    scores = ranked(ops) if labels else outputs[0]
    classes = class_count(variables.shape(scores), path)
    return SavedModel(
        kind=kind_of(ops),
        image=images[0],
        input_shape=image_shape(variables.shape(images[0]), path),
        label=labels[0] if labels else None,
        label_rank=len(variables.shape(labels[0])) if labels else 0,
        classes=classes,
        scores=None if labels else scores,
        accuracies=tuple(accuracies[k] for k in (1, min(5, classes)) if k in accuracies),
    )


def checked_program(path: Path) -> ProgramDesc:
    """Read the program of a saved model.

    Raises:
        DataError: the file is missing or corrupt.
    """
    try:
        program = read_program(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
    except DecodeError as error:
        raise DataError(
            f"{path}: not a Paddle model: the file is truncated or has another format"
        ) from error
    if not program.blocks:
        raise DataError(f"{path}: not a Paddle model: it contains no program")
    return program


def kind_and_inputs(path: Path) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the kind of a program, which need not be a classifier, and the shapes of its inputs.

    Args:
        path: the program.

    Returns:
        The kind (see ``SavedModel``), and the shape of each input; -1 stands for any size.

    Raises:
        DataError: the file is missing or corrupt.
    """
    program = checked_program(path)
    ops, variables = program.blocks[0].ops, Variables(program, path)
    inputs = [names(op.outputs, "Out")[0] for op in ordered(ops, "feed")]
    return kind_of(ops), {name: variables.shape(name) for name in inputs}


def network_file(prefix: Path) -> Path:
    """Return the program of a saved model without decoding and NMS.

    Args:
        prefix: path of the model without suffix.
    """
    network = prefix.with_name(NETWORK)
    return network if network.is_file() else Path(f"{prefix}.pdmodel")


class Variables:
    """The declared variables of a program."""

    def __init__(self, program: ProgramDesc, path: Path) -> None:
        self._tensors = {v.name: v.type.dense_tensor.tensor for v in program.blocks[0].vars}
        self._path = path

    def dtype(self, name: str) -> int:
        """Return the data type of a variable, a value of ``VarType``."""
        return self._tensor(name).data_type

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable; -1 stands for any size."""
        return tuple(self._tensor(name).dims)

    def _tensor(self, name: str) -> VarType.TensorDesc:
        if name not in self._tensors:
            raise DataError(f"{self._path}: {name} is used but not declared")
        return self._tensors[name]


def kind_of(ops: Sequence[OpDesc]) -> str:
    """Return the kind of a model (see ``SavedModel``), decided by its ops."""
    for op in ops:
        if any(a.name == "mkldnn_data_type" and a.s == "int8" for a in op.attrs):
            return INT8
        if any(name.endswith(UNSIGNED_ZERO_POINT) for name in names(op.inputs, "ZeroPoint")):
            return PADDLE_OPENVINO
    return FAKE_QUANTIZED if any(op.type.startswith(FAKE_OPS) for op in ops) else FP32


def accuracy_outputs(ops: Sequence[OpDesc], outputs: Sequence[str]) -> dict[int, str]:
    """Return k -> name of the output with the top-k accuracy."""
    sizes = {
        names(op.outputs, "Indices")[0]: next((a.i for a in op.attrs if a.name == "k"), 1)
        for op in ops
        if op.type in TOP_K
    }
    return {
        sizes[names(op.inputs, "Indices")[0]]: names(op.outputs, "Accuracy")[0]
        for op in ops
        if op.type == ACCURACY
        and names(op.outputs, "Accuracy")[0] in outputs
        and names(op.inputs, "Indices")[0] in sizes
    }


def ranked(ops: Sequence[OpDesc]) -> str:
    """Return the name of the scores that the first top_k op reads."""
    return next(names(op.inputs, "X")[0] for op in ops if op.type in TOP_K)


def ordered(ops: Sequence[OpDesc], kind: str) -> list[OpDesc]:
    """Return the feed or fetch ops in the order of the model's inputs or outputs."""
    of_kind = [op for op in ops if op.type == kind]
    return sorted(of_kind, key=lambda op: next((a.i for a in op.attrs if a.name == "col"), 0))


def names(slots: Sequence[OpDesc.Var], slot: str) -> list[str]:
    """Return the names of the variables in one slot of an op."""
    return [name for each in slots if each.parameter == slot for name in each.arguments]


def listed(variables: Sequence[str]) -> str:
    """Return the names of variables as text, as the native tester prints them."""
    return ", ".join(variables) or "none"


def sizes(shape: Sequence[int]) -> str:
    """Return a shape as text, as the native tester prints it."""
    return "x".join(map(str, shape))


def image_shape(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """Return (channels, height, width) of an input [N, C, H, W].

    Raises:
        DataError: the input does not have four dimensions.
    """
    if len(shape) != 4:
        raise DataError(f"{path}: expected an input [N, C, H, W], found {sizes(shape)}")
    return shape[1:]


def class_count(shape: tuple[int, ...], path: Path) -> int:
    """Return the number of classes of scores [N, classes].

    Raises:
        DataError: the scores do not have two dimensions or have no class.
    """
    if len(shape) != 2 or shape[1] < 1:
        raise DataError(f"{path}: expected scores [N, classes], found {sizes(shape)}")
    return shape[1]
