"""The INT8 model for ONNX Runtime: made from the fake-quantized model, loaded again and run.

paddle2onnx translates the network in FP32. What training found is put in afterwards, in the form
that ONNX Runtime makes integer kernels of: weights stored as int8 with one scale a channel, biases
as int32, batch norms folded into both, and a QuantizeLinear and DequantizeLinear wherever the
fake-quantized model has them. (paddle2onnx's own treatment of such models wants the scales of every
op's output, which training does not see, and leaves the weights in FP32.)
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import paddle2onnx
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from job.engine.onnxruntime import quantize
from job.engine.onnxruntime.export import write_with_clips
from job.engine.onnxruntime.graph import OnnxGraph
from job.errors import DataError, QuantizationError

MODEL = "model.onnx"
OPSET = 13
# What it may say of a model; they have no class in common.
REFUSALS = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.NotImplemented,
    ort.RuntimeException,
)
PROVIDERS = ["CPUExecutionProvider"]


def convert(fake_quantized: Path, out: Path) -> dict[str, Any]:
    """Write model.onnx, with the weights and scales of the fake-quantized model.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: an existing folder.

    Returns:
        ``quantizers`` (quantized activations), ``unsigned`` (those of them in unsigned steps),
        ``int8_weights`` and ``bytes``.

    Raises:
        QuantizationError: paddle2onnx cannot translate the model, or ONNX Runtime not run it.
    """
    # By its suffix, what a kill leaves of it is known for unfinished, and removed.
    with tempfile.TemporaryDirectory(dir=out, suffix=".tmp") as folder:
        plain = Path(folder) / "plain"
        weights = write_with_clips(fake_quantized, plain)
        graph = OnnxGraph(onnx.load(translated(plain)))
    quantize.drop_idle_pools(graph)
    quantize.fold_batch_norms(graph, weights)
    quantize.replace_clips(graph)
    quantize.share_quantizers(graph)
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
    """The ONNX file of a Paddle model, beside it."""
    target = plain.with_suffix(".onnx")
    try:
        paddle2onnx.export(
            f"{plain}.pdmodel", f"{plain}.pdiparams", str(target), opset_version=OPSET
        )
    except RuntimeError as error:
        raise cannot("paddle2onnx cannot translate", error) from error
    return target


def cannot(what: str, error: Exception) -> QuantizationError:
    """The error of a model that one of the libraries refuses."""
    reason = str(error).strip().splitlines()[0]
    return QuantizationError(
        f"{what} the fake-quantized model: {reason}", "Leave onnxruntime out of /benchmark/engines."
    )


class OnnxRuntimeModel:
    """A loaded model."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=PROVIDERS)
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        self.binding = self.session.io_binding()
        self.images: np.ndarray | None = None

    def set_images(self, images: np.ndarray) -> None:
        """Copy images, float32 [N, C, H, W], to the model's input."""
        # The binding may point to this memory instead of copying it.
        self.images = np.array(images, order="C")
        self.binding.bind_cpu_input(self.input, self.images)
        self.binding.bind_output(self.output)

    def run(self) -> None:
        """One forward pass over the images set before."""
        self.session.run_with_iobinding(self.binding)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Class scores, float32 [N, classes], of images float32 [N, C, H, W]."""
        self.set_images(images)
        self.run()
        return self.binding.copy_outputs_to_cpu()[0]


def open_model(folder: Path, threads: int) -> OnnxRuntimeModel:
    """Load what ``convert`` wrote.

    Raises:
        DataError: it is not there.
    """
    if not (folder / MODEL).is_file():
        raise DataError(f"{folder / MODEL} is missing", "Run again with --from onnxruntime.")
    return OnnxRuntimeModel(folder / MODEL, threads)
