"""calibrate: chooses scales, rounds weights and corrects biases, without training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job.events import Events
from job.manifest import Manifest
from job.manifest.custom_code import callable_files
from job.stages.network import open_for_quantization, quantize_settings
from job.stages.settings import CALIBRATION_SETTINGS
from job.stages.stage import CALIBRATION, Record, Stage, StageOutput


class StopRequestedError(Exception):
    """Ends the calibration after a batch or a weight. It does not leave this module."""


def run(
    manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events
) -> Record | None:
    """Write start.npz, or only a marker if calibration is switched off; None after a stop."""
    spec = manifest.quantize
    if not spec.calibrate:
        (out / "skipped.json").write_text(json.dumps({"calibrate": False}))
        return {"calibration": None}
    from job.engine.quantize import qat
    from job.engine.quantize.calibration import Method

    def report(phase: str, done: int, total: int) -> None:
        events.progress(phase, done, total, "steps")
        if events.stopping:
            raise StopRequestedError

    try:
        counts = qat.write_start(
            open_for_quantization(manifest, inputs["baseline"].path),
            quantize_settings(manifest),
            Method(
                ranges=spec.post_algo,
                gptq=spec.weight_rounding == "gptq",
                correct_bias=spec.correct_bias,
                equalize=spec.equalize,
            ),
            weights=inputs["baseline"].path / "weights.npz" if manifest.trains_quantized else None,
            pact=spec.pact,
            calibration=inputs["prepare"].path / CALIBRATION,
            out=out,
            progress=report,
        )
    except StopRequestedError:
        # Calibration takes minutes, so a resumed run starts it again.
        return None
    return {"calibration": counts}


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change the starting point of quantization."""
    spec = asdict(manifest.quantize)
    if not manifest.quantize.calibrate:
        return {"quantize": {"calibrate": False}}
    shared = ("weight_quantize_type", "quantize_op_types", "not_quant_pattern", "pact")
    callable_ = manifest.model.callable if manifest.trains_quantized else None
    return {
        "model": {"callable": callable_},
        "task": manifest.task,
        "quantize": {name: spec[name] for name in (*shared, *CALIBRATION_SETTINGS)},
    }


def files(manifest: Manifest) -> Sequence[Path]:
    """Return the files of the user's network code."""
    return callable_files(manifest) if manifest.trains_quantized else ()


STAGE = Stage("calibrate", "calibrated", ("prepare", "baseline"), settings, files, run)
