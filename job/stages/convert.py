"""convert: writes the fake-quantized inference model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.events import Events
from job.manifest import Manifest
from job.manifest.custom_code import callable_files
from job.stages.network import open_for_quantization, quantize_settings
from job.stages.settings import CALIBRATION_SETTINGS, settings_of
from job.stages.stage import Record, Stage, StageOutput


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:  # noqa: ARG001
    """Write model.pdmodel and model.pdiparams; the weights have int8 values."""
    from job.engine.quantize import qat
    from job.engine.training.checkpoints import BEST

    session = open_for_quantization(manifest, inputs["baseline"].path)
    best = inputs["qat"].path / BEST
    if not best.exists():
        best = inputs["calibrate"].path / qat.START
    spec = quantize_settings(manifest)
    return qat.convert(session, spec, best=best, pact=manifest.quantize.pact, out=out)


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change the fake-quantized model, except its weights."""
    quantize = settings_of(manifest.quantize, *CALIBRATION_SETTINGS, "calibrate", "fallback")
    callable_ = manifest.model.callable if manifest.trains_quantized else None
    return {"model": {"callable": callable_}, "quantize": quantize, "task": manifest.task}


def files(manifest: Manifest) -> Sequence[Path]:
    """Return the files of the user's network code."""
    return callable_files(manifest) if manifest.trains_quantized else ()


STAGE = Stage("convert", "qat_fake", ("baseline", "calibrate", "qat"), settings, files, run)
