"""INT8 models for the OpenVINO engine inside Paddle Inference.

The engine reads a fake-quantized Paddle program and runs it in INT8. ``convert`` rewrites the
program so that more ops run in INT8 and are fused. Only this engine computes the rewritten program
correctly: Paddle's own kernels ignore the zero points.
"""

import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import paddle
from paddle import inference

from job.engine.conversion import Conversion, check_files
from job.engine.inference.predictor import Predictor
from job.engine.inference.saved_model import UNSIGNED_ZERO_POINT, read_saved_model, sizes
from job.engine.paddle_openvino import rewrites
from job.engine.paddle_openvino.network import DEQUANTIZE, QUANTIZE, names, read_network
from job.errors import DataError, MachineError

PREFIX, ENGINE = "model", "paddle_openvino"
# The order matters: a merged pair can be moved, and a moved pair can be repeated.
STEPS = (
    rewrites.merge_pairs,
    rewrites.drop_idle_pools,
    rewrites.transpose_weights,
    rewrites.quantize_before_reshapes,
    rewrites.drop_repeated_pairs,
    rewrites.use_unsigned_steps,
)
# Paddle's CPU engine loads this library when it compiles a model.
PLUGIN = "libopenvino_intel_cpu_plugin.so"


def convert(fake_quantized: Path, out: Path) -> Conversion:
    """Write model.pdmodel and model.pdiparams with the weights of the fake-quantized model.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: existing folder.
    """
    network = read_network(fake_quantized)
    for rewrite in STEPS:
        rewrite(network)
    network.write(out / PREFIX)
    zeros = [names(op.inputs, "ZeroPoint") for op in network.ops if op.type == QUANTIZE]
    weights = {
        name for op in network.ops if op.type == DEQUANTIZE for name in names(op.inputs, "X")
    }
    return {
        "quantizers": len(zeros),
        "unsigned": sum(zero[0].endswith(UNSIGNED_ZERO_POINT) for zero in zeros if zero),
        "int8_weights": sum(name in network.values for name in weights),
        "bytes": sum(file.stat().st_size for file in out.glob(f"{PREFIX}.*")),
    }


def has_engine() -> bool:
    """Return whether the installed Paddle contains the OpenVINO engine for CPUs."""
    plugin = Path(paddle.__file__).parent / "libs" / PLUGIN
    return hasattr(inference.Config, "enable_openvino_engine") and plugin.is_file()


class PaddleOpenVINOModel(Predictor):
    """A model loaded into the engine. Threads must not share it: clones share one request.

    Args:
        prefix: path of the saved model without suffix.
        threads: number of threads.

    Raises:
        MachineError: the installed Paddle has no OpenVINO engine.
        DataError: the model is corrupt.
    """

    def __init__(self, prefix: Path, threads: int) -> None:
        if not has_engine():
            raise MachineError(
                f"{prefix} needs the OpenVINO engine of Paddle Inference, but the installed "
                "Paddle does not contain it",
                f"Install the locked version of Paddle, or remove {ENGINE} from "
                "/benchmark/engines.",
            )
        self.prefix = prefix
        self.input_shape = read_saved_model(prefix).input_shape
        config = inference.Config(f"{prefix}.pdmodel", f"{prefix}.pdiparams")
        config.set_cpu_math_library_num_threads(threads)
        config.disable_glog_info()
        config.enable_openvino_engine(inference.PrecisionType.Float32)
        # By default, the engine writes up to 138 MiB to the folder __cache__.
        self.cache = Path(tempfile.mkdtemp(prefix="job-openvino-"))
        weakref.finalize(self, shutil.rmtree, self.cache, ignore_errors=True)
        config.set_optim_cache_dir(str(self.cache))
        super().__init__(config)

    def set_images(self, images: np.ndarray) -> None:
        """Copy images, float32 [N, C, H, W], to the model's input.

        Raises:
            DataError: the images have another shape. The engine would return earlier scores.
        """
        expected = self.input_shape
        given = images.shape[1:]
        fits = len(given) == len(expected) and all(
            size in (-1, other) for size, other in zip(expected, given, strict=True)
        )
        if not fits:
            raise DataError(
                f"{self.prefix}: expected images of {sizes(expected)}, found {sizes(given)}",
                "Use images of the model's input shape.",
            )
        super().set_images(images)


def open_model(folder: Path, threads: int) -> PaddleOpenVINOModel:
    """Load a model that ``convert`` wrote.

    Args:
        folder: folder of the model.
        threads: number of threads.

    Raises:
        DataError: a file is missing.
        MachineError: the installed Paddle has no OpenVINO engine.
    """
    check_files(folder, [f"{PREFIX}.pdmodel", f"{PREFIX}.pdiparams"], ENGINE)
    return PaddleOpenVINOModel(folder / PREFIX, threads)
