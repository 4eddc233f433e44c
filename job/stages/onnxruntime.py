"""onnxruntime: the INT8 model for ONNX Runtime, from what training found."""

from collections.abc import Mapping
from pathlib import Path

from job.events import Events
from job.manifest import Manifest
from job.stages.engine_packages import PACKAGES
from job.stages.other_engines import NEEDS, differences
from job.stages.stage import Record, Stage, StageOutput


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write model.onnx."""
    from job.engine.onnxruntime import convert as onnxruntime

    made = onnxruntime.convert(inputs["convert"].path / "model", out)
    return {**made, **differences(manifest, inputs, onnxruntime.open_model(out, 1), events)}


STAGE = Stage(
    "onnxruntime",
    "int8_onnxruntime",
    NEEDS,
    lambda _: {},
    lambda _: (),
    run,
    host_matters=True,
    libraries=PACKAGES["onnxruntime"],
)
