"""Loads models into the OpenVINO engine inside Paddle Inference."""

import tempfile
from pathlib import Path

import numpy as np
import paddle
from paddle import inference

from job.engine.conversion import check_files, rejected
from job.engine.inference.failure import reason_of
from job.engine.inference.paddle_format import read_program
from job.engine.inference.predictor import Predictor
from job.engine.inference.saved_model import (
    PREFIX,
    Variables,
    names,
    network_file,
    ordered,
    sizes,
)
from job.errors import DataError, MachineError

ENGINE = "paddle_openvino"
# Paddle loads this library when the engine compiles a model.
PLUGIN = "libopenvino_intel_cpu_plugin.so"


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
        QuantizationError: the engine cannot load the model.
    """

    def __init__(self, prefix: Path, threads: int) -> None:
        if not has_engine():
            raise MachineError(
                f"{prefix} needs the OpenVINO engine of Paddle Inference, but the installed "
                "Paddle does not contain it",
                "Install the locked version of Paddle.",
            )
        self.prefix = prefix
        self.input_shape = image_shape(prefix)
        config = inference.Config(str(network_file(prefix)), f"{prefix}.pdiparams")
        config.set_cpu_math_library_num_threads(threads)
        config.disable_glog_info()
        config.enable_openvino_engine(inference.PrecisionType.Float32)
        # While it compiles, the engine writes up to 138 MiB, by default to the folder __cache__.
        with tempfile.TemporaryDirectory(prefix="job-openvino-") as cache:
            config.set_optim_cache_dir(cache)
            try:
                super().__init__(config)
            except (RuntimeError, ValueError, NotImplementedError) as error:
                what = "the OpenVINO engine in Paddle cannot load"
                raise rejected(what, reason_of(error), ENGINE) from error

    def names(self) -> tuple[str, str]:
        """Return the names of the first input and of the first output."""
        return self.predictor.get_input_names()[0], self.predictor.get_output_names()[0]

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


def image_shape(prefix: Path) -> tuple[int, ...]:
    """Return the shape of the first input of a saved model without the batch; -1: any size."""
    path = network_file(prefix)
    program = read_program(path)
    feed = ordered(program.blocks[0].ops, "feed")[0]
    return Variables(program, path).shape(names(feed.outputs, "Out")[0])[1:]


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
