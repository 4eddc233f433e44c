"""paddle_openvino: writes the INT8 model for the OpenVINO engine inside Paddle Inference."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.packed import open_packed
from job.errors import QuantizationError
from job.events import Events
from job.host import read_host
from job.manifest import Manifest
from job.profile import onednn_log
from job.profile import record as record_
from job.stages.engine_packages import PADDLE_OPENVINO, REJECTED
from job.stages.stage import CALIBRATION, Record, Stage, StageOutput
from job.stages.task import task_of
from job.tasks.task import Outputs

COMPARED_IMAGES = 32
MODEL = "model"


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write model.pdmodel and model.pdiparams, or return why the model would be wrong.

    The engine is in the default of ``/benchmark/engines``. Therefore an unsuitable model does not
    end the run, but it is not written.
    """
    from job.engine.inference.predictor import FAKE_QUANTIZED, ONEDNN
    from job.engine.paddle_openvino.convert import convert
    from job.engine.paddle_openvino.model import open_model

    shape = manifest.model.input_shape
    images = np.array(
        open_packed(inputs["prepare"].path / CALIBRATION, shape).images[:COMPARED_IMAGES]
    )
    fake = inputs["convert"].path / MODEL
    written = convert(fake, out, has_vnni=read_host().has_vnni)
    try:
        model = open_model(out, 1)
    except QuantizationError as error:
        return without_model(out, error.message, events)
    expected = outputs_of(fake, FAKE_QUANTIZED, images)
    fp32 = outputs_of(inputs["baseline"].path / MODEL, ONEDNN, images)
    found = asdict(task_of(manifest).agreement(model.outputs(images), expected, fp32))
    kernels = kernels_of(out / MODEL, shape)
    reason = fault(found, kernels, manifest.gates.int8_matches_fake)
    if reason:
        return without_model(out, reason, events)
    events.message(
        f"INT8 in the OpenVINO engine against fake-quantized: {found['signal_to_noise_db']:.1f} dB"
    )
    named = dict(zip(("input", "output"), model.names(), strict=True))
    return {**written, REJECTED: None, "agreement": found, "interface": named, **kernels}


def without_model(out: Path, reason: str, events: Events) -> Record:
    """Remove the model; return a record with the reason."""
    for file in out.glob(f"{MODEL}.*"):
        file.unlink()
    events.message(f"{STAGE.output_dir}/ contains no model, because {reason}", "warning")
    return {REJECTED: reason}


def outputs_of(prefix: Path, mode: str, images: NDArray[np.float32]) -> Outputs:
    """Return the outputs of a saved Paddle model in a mode of the predictor."""
    from job.engine.inference.predictor import Predictor, configuration

    return Predictor(configuration(prefix, mode, threads=1)).outputs(images)


def kernels_of(prefix: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the primitives and the ISA that the engine's oneDNN executed."""
    ran = record_.trace(prefix, record_.PADDLE_OPENVINO, shape)
    return {
        "int8_primitives": sum(primitive.is_int8 for primitive in ran),
        "primitives": onednn_log.summarize(ran),
        "isa": {"int8": onednn_log.int8_isa(ran)},
    }


def fault(
    found: Mapping[str, float], kernels: Mapping[str, Any], bound: float | None
) -> str | None:
    """Return why a model must not be used; None for a correct model.

    Args:
        found: agreement with the fake-quantized model.
        kernels: the executed kernels.
        bound: lowest signal-to-noise ratio in decibels, ``/gates/int8_matches_fake``.
    """
    decibels = found["signal_to_noise_db"]
    if bound is not None and not decibels >= bound:
        return (
            f"its scores agree with the fake-quantized model at {decibels:.1f} dB only "
            f"(/gates/int8_matches_fake: {bound:g} dB)"
        )
    if not kernels["int8_primitives"]:
        return "the engine ran no INT8 kernel"
    return None


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the bound, which decides whether the model is written."""
    return {"gates": {"int8_matches_fake": manifest.gates.int8_matches_fake}}


STAGE = Stage(
    PADDLE_OPENVINO,
    "int8_paddle_openvino",
    ("prepare", "baseline", "convert"),
    settings,
    lambda _: (),
    run,
    host_matters=True,
)
