"""INT8 models for ONNX Runtime.

paddle2onnx translates the network in FP32. Then this module adds the trained scales, so that ONNX
Runtime uses its integer kernels. Weights are stored as int8 with one scale per channel, and biases
as int32. Batch norms are folded into weights and biases. QuantizeLinear and DequantizeLinear
replace the quantize and dequantize ops of the fake-quantized model. paddle2onnx's conversion of
quantized models is not used, because it keeps weights in FP32. It also needs the scale of every
op's output, which training does not measure.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import paddle2onnx
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from job.engine.conversion import Conversion, check_files, rejected
from job.engine.onnxruntime import quantize
from job.engine.onnxruntime.export import write_with_clips
from job.engine.onnxruntime.graph import OnnxGraph
from job.errors import QuantizationError

MODEL = "model.onnx"
OPSET = 13
# Errors of ONNX Runtime for a model that it cannot run. They have no common base class.
REFUSALS = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NotImplemented,
    ort.RuntimeException,
)
PROVIDERS = ["CPUExecutionProvider"]


def convert(fake_quantized: Path, out: Path) -> Conversion:
    """Write model.onnx with the weights and scales of the fake-quantized model.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: existing folder.

    Raises:
        QuantizationError: paddle2onnx cannot translate the model, or ONNX Runtime cannot run it.
    """
    # The suffix marks the folder as unfinished, so that it is removed after a kill.
    with tempfile.TemporaryDirectory(dir=out, suffix=".tmp") as folder:
        plain = Path(folder) / "plain"
        weights, clips = write_with_clips(fake_quantized, plain)
        graph = OnnxGraph(onnx.load(translated(plain)))
    quantize.fold_batch_norms(graph, weights)
    quantize.replace_clips(graph, clips)
    quantize.drop_idle_activations(graph)
    int8_weights = quantize.store_weights(graph, weights)
    try:
        onnx.save(graph.finished(), out / MODEL)
        onnxruntime.InferenceSession(out / MODEL, providers=PROVIDERS)
    except (onnx.checker.ValidationError, *REFUSALS) as error:
        raise cannot("ONNX Runtime cannot run", error) from error
    size = (out / MODEL).stat().st_size
    return {**quantize.count(graph), "int8_weights": int8_weights, "bytes": size}


def translated(plain: Path) -> Path:
    """Translate a Paddle model to an ONNX file in the same folder; return its path.

    Raises:
        QuantizationError: paddle2onnx failed.
    """
    target = plain.with_suffix(".onnx")
    try:
        paddle2onnx.export(
            f"{plain}.pdmodel", f"{plain}.pdiparams", str(target), opset_version=OPSET
        )
    except RuntimeError as error:
        raise cannot("paddle2onnx cannot translate", error) from error
    return target


def cannot(what: str, error: Exception) -> QuantizationError:
    """Return the error of a library that cannot process the model."""
    return rejected(what, str(error).strip().splitlines()[0], "onnxruntime")


class OnnxRuntimeModel:
    """A loaded model.

    Args:
        path: the ONNX file.
        threads: number of threads.

    Raises:
        QuantizationError: ONNX Runtime cannot load the file.
    """

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=PROVIDERS)
        except REFUSALS as error:
            raise cannot("ONNX Runtime cannot load", error) from error
        self.input = self.session.get_inputs()[0].name
        self.results = [output.name for output in self.session.get_outputs()]
        self.binding = self.session.io_binding()
        self.images: np.ndarray | None = None

    def names(self) -> tuple[str, str]:
        """Return the names of the input and of the first output."""
        return self.input, self.results[0]

    def input_shape(self) -> list[int | str]:
        """Return the shape of the input, [N, C, H, W]; text stands for any size."""
        return list(self.session.get_inputs()[0].shape)

    def set_images(self, images: np.ndarray) -> None:
        """Copy images, float32 [N, C, H, W], to the model's input."""
        # This copy is kept, because the binding can refer to its memory.
        self.images = np.array(images, order="C")
        self.binding.bind_cpu_input(self.input, self.images)
        for name in self.results:
            self.binding.bind_output(name)

    def run(self) -> None:
        """Run one forward pass over the images of :meth:`set_images`.

        Raises:
            QuantizationError: ONNX Runtime has no kernel for an op.
        """
        try:
            self.session.run_with_iobinding(self.binding)
        except (RuntimeError, *REFUSALS) as error:
            raise cannot("ONNX Runtime cannot run", error) from error

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return all outputs for images float32 [N, C, H, W], in the order of the model."""
        self.set_images(images)
        self.run()
        return tuple(self.binding.copy_outputs_to_cpu())

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the first output for images float32 [N, C, H, W]; of a classifier, the scores."""
        return self.outputs(images)[0]


def open_model(folder: Path, threads: int) -> OnnxRuntimeModel:
    """Load a model that ``convert`` wrote.

    Args:
        folder: folder of the model.
        threads: number of threads.

    Raises:
        DataError: the file is missing.
    """
    check_files(folder, [MODEL], "onnxruntime")
    return OnnxRuntimeModel(folder / MODEL, threads)
