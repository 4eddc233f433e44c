"""Loads saved models into Paddle Inference and runs them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from paddle import inference

from job.engine.inference.saved_model import network_file
from job.errors import DataError

NATIVE, ONEDNN, FAKE_QUANTIZED, INT8 = "native", "onednn", "fake_quantized", "int8"
# This pass fuses fc and relu into an FP32 op outside oneDNN, which no pass quantizes.
HARMFUL_PASS = "repeated_fc_relu_fuse_pass"  # noqa: S105


def configuration(
    prefix: Path, mode: str, *, threads: int, log: bool = False, whole: bool = False
) -> inference.Config:
    """Return Paddle Inference's configuration for a saved model.

    Of an exported detector that decodes boxes, only the network is loaded, because accuracy and
    speed are measured at its outputs.

    Args:
        prefix: path without ``.pdmodel`` and ``.pdiparams``.
        mode: ``native`` or ``onednn`` for FP32, ``fake_quantized``, or ``int8`` for the model that
            the int8 stage writes.
        threads: number of threads of the math library.
        log: let Paddle log which passes it applies.
        whole: load decoding and NMS of an exported detector, too.

    Raises:
        DataError: a file is missing.
    """
    for suffix in (".pdmodel", ".pdiparams"):
        if not Path(f"{prefix}{suffix}").is_file():
            raise DataError(
                f"{prefix}{suffix} is missing",
                "Run again with --from STAGE, where STAGE is the stage that writes this file.",
            )
    program = Path(f"{prefix}.pdmodel") if whole else network_file(prefix)
    config = inference.Config(str(program), f"{prefix}.pdiparams")
    config.set_cpu_math_library_num_threads(threads)
    config.enable_memory_optim()
    if not log:
        config.disable_glog_info()
    if mode in (ONEDNN, INT8):
        config.enable_mkldnn()
    else:
        config.disable_mkldnn()
    if mode == FAKE_QUANTIZED:
        # The model must run op by op, as in training.
        config.switch_ir_optim(False)
    if mode == INT8:
        # The model is already optimized. Only its weights, one byte each, must be restored.
        keep_only(config, "constant_folding_pass")
    if mode == ONEDNN:
        config.delete_pass(HARMFUL_PASS)
    return config


def keep_only(config: inference.Config, wanted: str) -> None:
    """Disable every pass except ``wanted``."""
    for name in config.pass_builder().all_passes():
        if name != wanted:
            config.delete_pass(name)


class Predictor:
    """A model loaded into Paddle Inference."""

    def __init__(self, config: inference.Config) -> None:
        self.predictor = inference.create_predictor(config)
        self.input = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        self.results = [
            self.predictor.get_output_handle(name) for name in self.predictor.get_output_names()
        ]

    def set_images(self, images: np.ndarray) -> None:
        """Copy images, float32 [N, C, H, W], to the model's input."""
        self.input.reshape(images.shape)
        self.input.copy_from_cpu(np.ascontiguousarray(images))

    def run(self) -> None:
        """Run one forward pass over the images of :meth:`set_images`."""
        self.predictor.run()

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return all outputs for images float32 [N, C, H, W], in the order of the model."""
        self.set_images(images)
        self.run()
        return tuple(result.copy_to_cpu() for result in self.results)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the first output for images float32 [N, C, H, W]; of a classifier, the scores."""
        return self.outputs(images)[0]


def score_all(
    predictor: Predictor, images: np.ndarray, batch_size: int
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Yield (number of images done, outputs for the batch) for each batch of ``images``.

    Args:
        predictor: the loaded model.
        images: float32 [N, C, H, W].
        batch_size: images per batch; the last batch may be smaller.
    """
    for start in range(0, len(images), batch_size):
        batch = np.array(images[start : start + batch_size])
        yield start + len(batch), predictor.outputs(batch)
