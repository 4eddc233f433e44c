"""Compares the INT8 model of another engine with the fake-quantized model."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.packed import open_packed
from job.errors import QuantizationError
from job.events import Events
from job.manifest import Manifest
from job.stages.engine_packages import REJECTED
from job.stages.stage import CALIBRATION, Record, StageOutput
from job.stages.task import task_of
from job.tasks.task import Outputs

COMPARED_IMAGES = 32
MODEL = "model"
# Stages whose results the comparison reads.
NEEDS = ("prepare", "baseline", "convert")


def checked_agreement(
    manifest: Manifest, inputs: Mapping[str, StageOutput], model: Any
) -> dict[str, Any]:
    """Compare the outputs of an engine for calibration images with the fake-quantized model.

    Args:
        manifest: the run's manifest; ``/gates/int8_matches_fake`` is the lower limit.
        inputs: outputs of the stages in ``NEEDS``.
        model: the model loaded into the engine.

    Returns:
        The fields of :class:`job.tasks.task.Agreement`.

    Raises:
        QuantizationError: the engine cannot run the model, or the agreement is below the limit.
    """
    from job.engine.inference.predictor import FAKE_QUANTIZED, ONEDNN

    shape = manifest.model.input_shape
    images = np.array(
        open_packed(inputs["prepare"].path / CALIBRATION, shape).images[:COMPARED_IMAGES]
    )
    expected = outputs_of(inputs["convert"].path / MODEL, FAKE_QUANTIZED, images)
    fp32 = outputs_of(inputs["baseline"].path / MODEL, ONEDNN, images)
    found = task_of(manifest).agreement(model.outputs(images), expected, fp32)
    require_agreement(found.signal_to_noise_db, manifest.gates.int8_matches_fake)
    return asdict(found)


def require_agreement(decibels: float, bound: float | None) -> None:
    """Check that a model agrees with the fake-quantized model.

    Args:
        decibels: signal-to-noise ratio against the fake-quantized model.
        bound: lowest ratio, ``/gates/int8_matches_fake``.

    Raises:
        QuantizationError: the ratio is below the bound, or NaN.
    """
    if bound is not None and not decibels >= bound:
        raise QuantizationError(
            f"its scores agree with the fake-quantized model at {decibels:.1f} dB only "
            f"(/gates/int8_matches_fake: {bound:g} dB)"
        )


def outputs_of(prefix: Path, mode: str, images: NDArray[np.float32]) -> Outputs:
    """Return the outputs of a saved Paddle model in a mode of the predictor."""
    from job.engine.inference.predictor import Predictor, configuration

    return Predictor(configuration(prefix, mode, threads=1)).outputs(images)


def without_model(out: Path, output_dir: str, reason: str, events: Events) -> Record:
    """Remove the files of a model; return a record with the reason.

    Args:
        out: folder of the model.
        output_dir: name of the folder in the output, for the message.
        reason: why the model must not be used.
        events: receives the message.
    """
    for file in out.glob(f"{MODEL}.*"):
        file.unlink()
    events.message(f"{output_dir}/ contains no model, because {reason}", "warning")
    return {REJECTED: reason}


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the bound, which decides whether a model is written."""
    return {"gates": {"int8_matches_fake": manifest.gates.int8_matches_fake}}
