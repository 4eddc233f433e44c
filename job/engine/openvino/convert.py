"""INT8 models for OpenVINO.

OpenVINO's low precision transformations replace FakeQuantize ops by integer kernels. The speed of
these kernels depends on the form of the graph. ``convert`` stores weights as int8 with one scale
per channel, and folds batch norms into scale and bias. It keeps one FakeQuantize for each value
that quantized ops read, and removes all others. For values that are never negative it uses unsigned
steps.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

# The passes that ovc applies, without ovc's usage statistics. NNCF imports them in the same way.
from openvino._offline_transformations import apply_moc_transformations

from job.engine.conversion import Conversion, check_files, rejected
from job.engine.openvino.residual_sums import fold_sums

MODEL = "model.xml"
FAKE_QUANTIZE = "FakeQuantize"
LEVELS = 256
RESHAPES = ("Reshape", "Squeeze", "Unsqueeze")
NEVER_NEGATIVE = ("Relu", "Sigmoid", "HSigmoid", "HardSigmoid")
# Ops whose output is never negative if their input is never negative.
KEEPING_SIGN = (
    FAKE_QUANTIZE,
    "MaxPool",
    "AvgPool",
    "AdaptiveAvgPool",
    "ReduceMean",
    "Transpose",
    *RESHAPES,
)
# Property of OpenVINO's CPU plugin. By default, the plugin's code generator (snippets) takes the
# sums of `fold_sums` before they can be fused into the convolutions.
FOLDING = {"SNIPPETS_MODE": "DISABLE"}


def convert(fake_quantized: Path, out: Path) -> Conversion:
    """Write model.xml and model.bin with the weights and scales of the fake-quantized model.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: existing folder.

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
    """Read a Paddle model as an OpenVINO graph with folded batch norms.

    Raises:
        QuantizationError: OpenVINO cannot read the model.
    """
    try:
        model = ov.Core().read_model(f"{prefix}.pdmodel")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise rejected("OpenVINO cannot read", reason, "openvino") from error
    apply_moc_transformations(model, cf=True, smart_reshape=False)
    return model


def drop_idle_pools(model: ov.Model) -> None:
    """Remove adaptive pools that do not change the image size (VGG at 224 pixels)."""
    for op in model.get_ordered_ops():
        if op.get_type_name() != "AdaptiveAvgPool":
            continue
        before, after = (port.get_partial_shape()[2:] for port in (op.input_value(0), op.output(0)))
        if before.is_static and before == after:
            op.output(0).replace(op.input_value(0))


def transpose_weights(model: ov.Model) -> None:
    """Store the weights of fully connected layers with one row per output.

    OpenVINO's kernels need this layout. If OpenVINO transposes the weights while it loads a model,
    the kernels do not treat them as constants. OpenVINO then does not reorder the weights to the
    fastest layout.
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
    """Quantize values that are never negative with 256 unsigned steps over the trained range.

    The fake-quantized model uses half of its steps for negative values, which do not occur. Kernels
    for unsigned values are also faster on CPUs without AMX.
    """
    for op in model.get_ordered_ops():
        if op.get_type_name() != FAKE_QUANTIZE or not is_never_negative(op.input_value(0)):
            continue
        # Input and output bounds can differ, because dropout's scale is folded into the output's.
        bounds = []
        for slot in (2, 4):
            largest = op.input_value(slot).get_node().data
            bounds += [ops.constant(0 * largest), ops.constant(largest)]
        unsigned = ops.fake_quantize(op.input_value(0), *bounds, LEVELS)
        unsigned.set_friendly_name(op.get_friendly_name())
        op.output(0).replace(unsigned.output(0))


def quantize_before_reshapes(model: ov.Model) -> None:
    """Move quantization before reshapes, where OpenVINO can fuse it into a global pool."""
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
    """Return whether a value is known to be at least zero."""
    op = value.get_node()
    kind = op.get_type_name()
    if kind == "Clamp":
        return op.get_attributes()["min"] >= 0
    if kind == "Concat":
        return all(is_never_negative(part) for part in op.input_values())
    return kind in NEVER_NEGATIVE or (kind in KEEPING_SIGN and is_never_negative(op.input_value(0)))


def drop_repeated_quantizers(model: ov.Model) -> None:
    """Remove a FakeQuantize after a max pool whose input has the same steps."""
    for op in model.get_ordered_ops():
        pool = op.input_value(0).get_node() if op.get_type_name() == FAKE_QUANTIZE else None
        if pool is None or pool.get_type_name() != "MaxPool":
            continue
        before = pool.input_value(0).get_node()
        if before.get_type_name() == FAKE_QUANTIZE and is_same_again(before, op):
            op.output(0).replace(op.input_value(0))


def is_same_again(before: ov.Node, op: ov.Node) -> bool:
    """Return whether a FakeQuantize does not change the values that ``before`` writes."""
    return steps(before, 3) == steps(op, 1) == steps(op, 3)


def steps(quantizer: ov.Node, slot: int) -> list[Any]:
    """Return the bounds of a FakeQuantize: of its input for slot 1, of its output for slot 3."""
    return [quantizer.input_value(each).get_node().data.tolist() for each in (slot, slot + 1)]


def is_int8_weight(op: ov.Node) -> bool:
    """Return whether an op is an int8 constant."""
    return op.get_type_name() == "Constant" and op.get_element_type() == ov.Type.i8


class OpenVINOModel:
    """A loaded model. It is compiled for each shape of images, because fixed shapes run faster.

    Args:
        folder: folder of the model.
        threads: number of threads.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.path = folder / MODEL
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Keeps ops that are not quantized in FP32. With AMX the default is bfloat16.
            "INFERENCE_PRECISION_HINT": "f32",
            # The parent process pins this process.
            "ENABLE_CPU_PINNING": False,
        }
        self.core = ov.Core()
        self.request: ov.InferRequest | None = None
        self.shape: tuple[int, ...] = ()

    def names(self) -> tuple[str, str]:
        """Return the names of the input and of the output."""
        model = self.core.read_model(self.path)
        return model.input(0).any_name, model.output(0).any_name

    def set_images(self, images: np.ndarray) -> None:
        """Copy images, float32 [N, C, H, W], to the model's input."""
        if self.request is None or images.shape != self.shape:
            self.request = self.compiled(images.shape).create_infer_request()
            self.shape = images.shape
        self.request.get_input_tensor().data[:] = images

    def compiled(self, shape: tuple[int, ...]) -> ov.CompiledModel:
        """Compile the model for images of one shape."""
        model = self.core.read_model(self.path)
        model.reshape(shape)
        if fold_sums(model):
            try:
                return self.core.compile_model(model, "CPU", {**self.settings, **FOLDING})
            except RuntimeError:
                # A release without this property runs the model as saved, without folded sums.
                model = self.core.read_model(self.path)
                model.reshape(shape)
        return self.core.compile_model(model, "CPU", self.settings)

    def run(self) -> None:
        """Run one forward pass over the images of :meth:`set_images`."""
        self.request.infer()

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return all outputs for images float32 [N, C, H, W], in the order of the model."""
        self.set_images(images)
        self.run()
        return tuple(tensor.data.copy() for tensor in self.request.output_tensors)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the first output for images float32 [N, C, H, W]; of a classifier, the scores."""
        return self.outputs(images)[0]


def open_model(folder: Path, threads: int) -> OpenVINOModel:
    """Load a model that ``convert`` wrote.

    Args:
        folder: folder of the model.
        threads: number of threads.

    Raises:
        DataError: a file is missing.
    """
    check_files(folder, [MODEL, "model.bin"], "openvino")
    return OpenVINOModel(folder, threads)
