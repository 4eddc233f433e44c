"""Runs a tiny network in INT8 to check that this installation can run the job."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from job.engine.inference import predictor, runtime
from job.engine.int8 import build as int8
from job.engine.quantize import fake_quantize, grid
from job.engine.quantize.calibration import calibrate
from job.engine.quantize.measurement import Images
from job.engine.training import programs
from job.engine.training.ready_names import IMAGE
from job.engine.training.session import open_session
from job.errors import MachineError
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
# INT8 of a calibrated random network stays within this error of FP32. A broken engine does not.
MAX_RELATIVE_ERROR = 0.15


def run() -> dict[str, Any]:
    """Quantize a tiny network and run it in INT8.

    Returns:
        ``isa``, ``kernels`` (implementations of the executed INT8 primitives), ``seconds``,
        ``relative_error`` of the scores against FP32, and ``versions``.

    Raises:
        QuantizationError: the INT8 model cannot be built.
        MachineError: the INT8 model runs no INT8 kernel, or its error is too large.
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
        primitives = record_.trace(Path(folder) / int8.PREFIX, predictor.INT8, SHAPE)
    kernels = sorted({p.implementation for p in primitives if p.is_int8})
    if not kernels or error > MAX_RELATIVE_ERROR:
        raise MachineError(
            f"executed INT8 kernels: {', '.join(kernels) or 'none'}, expected at least one; "
            f"relative error of INT8 against FP32: {error:.3f}, expected at most "
            f"{MAX_RELATIVE_ERROR}",
            "Run `make clean doctor` in the source folder, which installs the locked dependencies "
            "again, or use another machine.",
        )
    return {
        "isa": onednn_log.isa(primitives),
        "kernels": kernels,
        "seconds": time.monotonic() - started,
        "relative_error": error,
        "versions": {"paddlepaddle": runtime.VERSION, "numpy": np.__version__},
    }


def quantize(session: Any, images: np.ndarray, out: Path) -> tuple[np.ndarray, float]:
    """Write the INT8 model of a session to ``out``.

    Args:
        session: an open session with an FP32 network.
        images: float32 [N, C, H, W], for calibration and comparison.
        out: the folder to write to.

    Returns:
        FP32 scores [N, classes], and the relative error of the INT8 scores (Euclidean norm).
    """
    classifier = session.classifier
    with session.active():
        fake_quantize.keep_bias_adds_whole(classifier.evaluation)
        evaluation = classifier.evaluation.clone(for_test=True)
        quantized = fake_quantize.insert(evaluation, session.scope, SETTINGS, for_test=True)
        grid.use_unsigned_steps(quantized)
        (fp32,) = session.executor.run(classifier.evaluation, {IMAGE: images}, [classifier.logits])
        calibrate(classifier, quantized, session.scope, session.executor, Images(images), SETTINGS)
        program = fake_quantize.convert(quantized, session.scope)
        programs.save_inference_model(program, out / "fake", classifier.outputs, session.executor)
    _, (scores,) = int8.build(out / "fake", out, SETTINGS["quantize_op_types"], images)
    return fp32, float(np.linalg.norm(scores - fp32) / np.linalg.norm(fp32))
