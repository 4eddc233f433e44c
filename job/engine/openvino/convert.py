"""INT8 models for OpenVINO.

OpenVINO's low precision transformations replace FakeQuantize ops by integer kernels. The speed of
these kernels depends on the form of the graph. ``convert`` stores weights as int8 with one scale
per channel, and folds batch norms into scale and bias. The rewrites of the Paddle program leave one
FakeQuantize for each value that quantized ops read, with unsigned steps for values that are never
negative.
"""

import tempfile
from pathlib import Path

import numpy as np
import openvino as ov

# The passes that ovc applies, without ovc's usage statistics. NNCF imports them in the same way.
from openvino._offline_transformations import apply_moc_transformations

from job.engine.conversion import Conversion, check_files, rejected
from job.engine.inference.saved_model import PREFIX
from job.engine.openvino.residual_sums import fold_sums
from job.engine.rewrites.openvino_form import in_openvino_form

MODEL = "model.xml"
FAKE_QUANTIZE = "FakeQuantize"
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
    # The suffix marks the folder as unfinished, so that it is removed after a kill.
    with tempfile.TemporaryDirectory(dir=out, suffix=".tmp") as folder:
        in_openvino_form(fake_quantized).write(Path(folder) / PREFIX)
        model = read(Path(folder) / PREFIX)
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
            # Ops that are not quantized run in FP32. On a CPU with AMX, the default is bfloat16.
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

    def input_shape(self) -> list[int]:
        """Return the shape of the input, [N, C, H, W]; -1 stands for any size."""
        shape = self.core.read_model(self.path).input(0).partial_shape
        return [size.get_length() if size.is_static else -1 for size in shape]

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
