"""Selects the settings that can change a stage's output."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from job.manifest import Manifest

# Settings of /quantize that only calibration reads.
CALIBRATION_SETTINGS = ("post_algo", "weight_rounding", "correct_bias", "equalize")

# Settings that change the speed or the safety of a stage, but not its output.
WITHOUT_EFFECT = ("workers", "checkpoint_seconds")


def settings_of(spec: Any, *without: str) -> Mapping[str, Any]:
    """Return the fields of a manifest record, except ``without`` and ``WITHOUT_EFFECT``."""
    excluded = {*without, *WITHOUT_EFFECT}
    return {key: value for key, value in asdict(spec).items() if key not in excluded}


def training_settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings of the task that can change trained weights.

    The thresholds of detections belong to them, because the best weights are selected by mAP.
    """
    return {"task": manifest.task, "detection": settings_of(manifest.detection)}
