"""A real INT8 inference of a tiny network, as proof that this installation can do the job."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from job.engine.inference import predictor, runtime
from job.engine.int8 import build as int8
from job.engine.quantize import fake_quantize, scales
from job.engine.training import programs
from job.engine.training.session import open_session
from job.profile import onednn_log
from job.profile import record as record_

SHAPE = (3, 16, 16)
SETTINGS: dict[str, Any] = {
    "weight_quantize_type": "channel_wise_abs_max",
    "activation_quantize_type": "moving_average_abs_max",
    "quantize_op_types": ["conv2d", "matmul_v2", "elementwise_add"],
    "not_quant_pattern": ["skip_quant"],
    "onnx_format": True,
}
# INT8 of a calibrated random network stays this close to FP32; a broken engine is far off.
MAX_RELATIVE_ERROR = 0.15


def run() -> dict[str, Any]:
    """Quantize a tiny network and run it in INT8.

    Returns:
        ``isa``, ``kernels`` (implementations of the INT8 primitives that ran), ``seconds``,
        ``relative_error`` against FP32, ``versions``.

    Raises:
        QuantizationError: the INT8 model cannot be made, runs no INT8 kernel, or is far off FP32.
    """
    started = time.monotonic()
    session = open_session(
        name="convnet",
        callable_=None,
        inference_model=None,
        classes=10,
        input_shape=SHAPE,
        width=1.0,
        seed=0,
        label_smoothing=0.0,
    )
    images = np.random.default_rng(0).standard_normal((16, *SHAPE)).astype("float32")
    with tempfile.TemporaryDirectory(prefix="job-smoke-") as folder:
        _, error = quantize(session, images, Path(folder))
        ran = record_.trace(Path(folder) / int8.PREFIX, predictor.INT8, SHAPE)
    kernels = sorted({p.implementation for p in ran if p.is_int8})
    if not kernels or error > MAX_RELATIVE_ERROR:
        raise int8.QuantizationError(
            f"INT8 kernels that ran: {kernels or 'none'}; relative error against FP32 {error:.3f}, "
            f"at most {MAX_RELATIVE_ERROR} expected",
            "This machine or this build of Paddle cannot run oneDNN INT8 rightly.",
        )
    return {
        "isa": onednn_log.isa(ran),
        "kernels": kernels,
        "seconds": time.monotonic() - started,
        "relative_error": error,
        "versions": {"paddlepaddle": runtime.VERSION, "numpy": np.__version__},
    }


def quantize(session: Any, images: np.ndarray, out: Path) -> tuple[np.ndarray, float]:
    """Write the INT8 model of a session to ``out``; FP32 scores and INT8's relative error."""
    classifier = session.classifier
    with session.active():
        fake_quantize.keep_bias_adds_whole(classifier.evaluation)
        evaluation = classifier.evaluation.clone(for_test=True)
        quantized = fake_quantize.insert(evaluation, session.scope, SETTINGS, for_test=True)
        scales.calibrate(
            classifier,
            quantized,
            None,
            session.scope,
            session.executor,
            [images],
            moving_rate=0.9,
        )
        (fp32,) = session.executor.run(
            classifier.evaluation, {programs.IMAGE: images}, [classifier.logits]
        )
        program = fake_quantize.convert(quantized, session.scope)
        programs.save_inference_model(program, out / "fake", classifier.logits, session.executor)
    _, scores = int8.build(out / "fake", out, SETTINGS["quantize_op_types"], images)
    return fp32, float(np.linalg.norm(scores - fp32) / np.linalg.norm(fp32))
