"""convert: writes the fake-quantized inference model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.events import Events
from job.manifest import Manifest
from job.manifest.custom_code import callable_files
from job.stages.network import network, quantize_settings
from job.stages.settings import POST, settings_of
from job.stages.stage import CALIBRATION, Record, Stage, StageOutput


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:  # noqa: ARG001
    """Write model.pdmodel and model.pdiparams; the weights have int8 values."""
    from job.engine.quantize import qat
    from job.engine.training.session import open_session

    settings = quantize_settings(manifest)
    if manifest.quantize.strategy == POST:
        return qat.convert_post_training(
            inputs["baseline"].path,
            settings,
            calibration=inputs["prepare"].path / CALIBRATION,
            input_shape=manifest.model.input_shape,
            algorithm=manifest.quantize.post_algo,
            out=out,
        )
    session = open_session(**network(manifest, manifest.train))
    best = inputs["qat"].path / "best.npz"
    return qat.convert(session, settings, best=best, pact=manifest.quantize.pact, out=out)


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change the fake-quantized model, except its weights."""
    quantize = settings_of(manifest.quantize, "calibrate", "fallback")
    if manifest.quantize.strategy == POST:
        return {"quantize": quantize}
    return {"model": {"callable": manifest.model.callable}, "quantize": quantize}


def files(manifest: Manifest) -> Sequence[Path]:
    """Return the files of the user's network code."""
    return () if manifest.quantize.strategy == POST else callable_files(manifest)


STAGE = Stage("convert", "qat_fake", ("prepare", "baseline", "qat"), settings, files, run)
