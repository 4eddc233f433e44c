"""The INT8 model for OpenVINO: made from the fake-quantized model, loaded again and run.

OpenVINO's low precision transformations turn a graph of FakeQuantize ops into integer kernels. How
fast those are depends on the graph's shape, which ``convert`` sees to: weights stored as int8 with
one scale a channel, batch norms folded into that scale and a bias, one FakeQuantize where a value
is read by quantized ops and none elsewhere, and unsigned steps for values that are never negative.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

# As NNCF does: the passes that ovc applies, without its usage statistics.
from openvino._offline_transformations import apply_moc_transformations

from job.engine.openvino.residual_sums import fold_sums
from job.errors import DataError, QuantizationError

MODEL = "model.xml"
FAKE_QUANTIZE = "FakeQuantize"
LEVELS = 256
RESHAPES = ("Reshape", "Squeeze", "Unsqueeze")
NEVER_NEGATIVE = ("Relu", "Sigmoid", "HSigmoid", "HardSigmoid")
# Ops whose output has no smaller value than their inputs.
KEEPING_SIGN = (
    FAKE_QUANTIZE,
    "MaxPool",
    "AvgPool",
    "AdaptiveAvgPool",
    "ReduceMean",
    "Transpose",
    *RESHAPES,
)
# Known to OpenVINO's CPU plugin alone: without it, its code generator takes the sums that
# `fold_sums` made before the convolutions can.
FOLDING = {"SNIPPETS_MODE": "DISABLE"}


def convert(fake_quantized: Path, out: Path) -> dict[str, Any]:
    """Write model.xml and model.bin, with the weights and scales of the fake-quantized model.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: an existing folder.

    Returns:
        ``quantizers`` (quantized activations), ``unsigned`` (those of them in unsigned steps),
        ``int8_weights`` and ``bytes``.

    Raises:
        QuantizationError: OpenVINO cannot read the model.
    """
    model = read(fake_quantized)
    drop_idle_pools(model)
    transpose_weights(model)
    use_unsigned_steps(model)
    quantize_before_reshapes(model)
    drop_repeated_quantizers(model)
    ov.save_model(model, out / MODEL, compress_to_fp16=False)
    quantizers = [op for op in model.get_ops() if op.get_type_name() == FAKE_QUANTIZE]
    return {
        "quantizers": len(quantizers),
        "unsigned": sum(not np.any(op.input_value(1).get_node().data) for op in quantizers),
        "int8_weights": sum(is_int8_weight(op) for op in model.get_ops()),
        "bytes": sum(file.stat().st_size for file in out.glob("model.*")),
    }


def read(prefix: Path) -> ov.Model:
    """A Paddle model as OpenVINO's graph, batch norms folded."""
    try:
        model = ov.Core().read_model(f"{prefix}.pdmodel")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise QuantizationError(
            f"OpenVINO cannot read the fake-quantized model: {reason}",
            "Leave openvino out of /benchmark/engines.",
        ) from error
    apply_moc_transformations(model, cf=True, smart_reshape=False)
    return model


def drop_idle_pools(model: ov.Model) -> None:
    """Remove adaptive pools that leave the plane as it is (VGG at 224 pixels)."""
    for op in model.get_ordered_ops():
        if op.get_type_name() != "AdaptiveAvgPool":
            continue
        before, after = (
            place.get_partial_shape()[2:] for place in (op.input_value(0), op.output(0))
        )
        if before.is_static and before == after:
            op.output(0).replace(op.input_value(0))


def transpose_weights(model: ov.Model) -> None:
    """Store the weights of fully connected layers with a row for each output.

    OpenVINO's kernels read them so. What it transposes itself when it loads a model is no constant
    to them any more, and is not brought into the order in which they read quickest.
    """
    for op in model.get_ordered_ops():
        scaled = op.input_value(1).get_node() if op.get_type_name() == "MatMul" else None
        if scaled is None or scaled.get_type_name() != "Multiply":
            continue
        wide, scale = (value.get_node() for value in scaled.input_values())
        weight = wide.input_value(0).get_node() if wide.get_type_name() == "Convert" else None
        attributes = op.get_attributes()
        if weight is None or not is_int8_weight(weight) or attributes["transpose_b"]:
            continue
        if weight.data.ndim != 2 or scale.data.ndim > 2:
            continue
        transposed = ops.constant(np.ascontiguousarray(weight.data.T), ov.Type.i8)
        transposed.set_friendly_name(weight.get_friendly_name())
        scales = ops.constant(np.ascontiguousarray(np.atleast_2d(scale.data).T))
        rows = ops.multiply(ops.convert(transposed, "f32"), scales)
        product = ops.matmul(op.input_value(0), rows, attributes["transpose_a"], True)
        product.set_friendly_name(op.get_friendly_name())
        op.output(0).replace(product.output(0))


def use_unsigned_steps(model: ov.Model) -> None:
    """Give values that are never negative all 256 steps of the range that training found.

    The fake-quantized model spends half of its steps on values that cannot occur. Kernels for
    unsigned values are also quicker where there is no AMX.
    """
    for op in model.get_ordered_ops():
        if op.get_type_name() != FAKE_QUANTIZE or not is_never_negative(op.input_value(0)):
            continue
        # What is read and what is written may differ: dropout's scale is folded into the latter.
        bounds = []
        for slot in (2, 4):
            largest = op.input_value(slot).get_node().data
            bounds += [ops.constant(0 * largest), ops.constant(largest)]
        unsigned = ops.fake_quantize(op.input_value(0), *bounds, LEVELS)
        unsigned.set_friendly_name(op.get_friendly_name())
        op.output(0).replace(unsigned.output(0))


def quantize_before_reshapes(model: ov.Model) -> None:
    """Quantize what a reshape reads instead of what it writes: a global pool takes that in."""
    for op in model.get_ordered_ops():
        reshape = op.input_value(0).get_node() if op.get_type_name() == FAKE_QUANTIZE else None
        if reshape is None or reshape.get_type_name() not in RESHAPES:
            continue
        alone = len(reshape.output(0).get_target_inputs()) == 1
        bounds = [bound.get_node().data for bound in op.input_values()[1:]]
        rank = len(reshape.input_value(0).get_partial_shape())
        one_scale = all(bound.size == 1 and bound.ndim <= rank for bound in bounds)
        if alone and one_scale:
            op.output(0).replace(reshape.output(0))
            op.input(0).replace_source_output(reshape.input_value(0))
            reshape.input(0).replace_source_output(op.output(0))


def is_never_negative(value: ov.Output) -> bool:
    """Whether a value is known to be at least zero."""
    op = value.get_node()
    kind = op.get_type_name()
    if kind == "Clamp":
        return op.get_attributes()["min"] >= 0
    if kind == "Concat":
        return all(is_never_negative(part) for part in op.input_values())
    return kind in NEVER_NEGATIVE or (kind in KEEPING_SIGN and is_never_negative(op.input_value(0)))


def drop_repeated_quantizers(model: ov.Model) -> None:
    """Remove what quantizes the output of a max pool whose input has those very steps."""
    for op in model.get_ordered_ops():
        pool = op.input_value(0).get_node() if op.get_type_name() == FAKE_QUANTIZE else None
        if pool is None or pool.get_type_name() != "MaxPool":
            continue
        before = pool.input_value(0).get_node()
        if before.get_type_name() == FAKE_QUANTIZE and is_same_again(before, op):
            op.output(0).replace(op.input_value(0))


def is_same_again(before: ov.Node, op: ov.Node) -> bool:
    """Whether a FakeQuantize leaves the values that another one writes as they are."""
    return steps(before, 3) == steps(op, 1) == steps(op, 3)


def steps(quantizer: ov.Node, slot: int) -> list[Any]:
    """Two bounds of a FakeQuantize: 1, those that it reads; 3, those that it writes."""
    return [quantizer.input_value(each).get_node().data.tolist() for each in (slot, slot + 1)]


def is_int8_weight(op: ov.Node) -> bool:
    """Whether an op is a stored weight of one byte."""
    return op.get_type_name() == "Constant" and op.get_element_type() == ov.Type.i8


class OpenVINOModel:
    """A loaded model; compiled anew for each shape of images, as fixed shapes run faster."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.path = folder / MODEL
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # What is not quantized stays in FP32, also where AMX would make it bfloat16.
            "INFERENCE_PRECISION_HINT": "f32",
            # The process is pinned by whoever started it.
            "ENABLE_CPU_PINNING": False,
        }
        self.core = ov.Core()
        self.request: ov.InferRequest | None = None
        self.shape: tuple[int, ...] = ()

    def set_images(self, images: np.ndarray) -> None:
        """Copy images, float32 [N, C, H, W], to the model's input."""
        if self.request is None or images.shape != self.shape:
            self.request = self.compiled(images.shape).create_infer_request()
            self.shape = images.shape
        self.request.get_input_tensor().data[:] = images

    def compiled(self, shape: tuple[int, ...]) -> ov.CompiledModel:
        """The model for images of one shape."""
        model = self.core.read_model(self.path)
        model.reshape(shape)
        if fold_sums(model):
            try:
                return self.core.compile_model(model, "CPU", {**self.settings, **FOLDING})
            except RuntimeError:
                # A release without that setting runs the model as it is saved.
                model = self.core.read_model(self.path)
                model.reshape(shape)
        return self.core.compile_model(model, "CPU", self.settings)

    def run(self) -> None:
        """One forward pass over the images set before."""
        self.request.infer()

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Class scores, float32 [N, classes], of images float32 [N, C, H, W]."""
        self.set_images(images)
        self.run()
        return self.request.get_output_tensor().data.copy()


def open_model(folder: Path, threads: int) -> OpenVINOModel:
    """Load what ``convert`` wrote.

    Raises:
        DataError: it is not there.
    """
    for name in (MODEL, "model.bin"):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing", "Run again with --from openvino.")
    return OpenVINOModel(folder, threads)
