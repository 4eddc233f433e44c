"""openvino: the INT8 model for OpenVINO, from the weights and scales that training found."""

from collections.abc import Mapping
from pathlib import Path

from job.events import Events
from job.manifest import Manifest
from job.stages.engine_packages import PACKAGES
from job.stages.other_engines import NEEDS, differences
from job.stages.stage import Record, Stage, StageOutput


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write model.xml and model.bin."""
    from job.engine.openvino import convert as openvino

    made = openvino.convert(inputs["convert"].path / "model", out)
    return {**made, **differences(manifest, inputs, openvino.open_model(out, 1), events)}


STAGE = Stage(
    "openvino",
    "int8_openvino",
    NEEDS,
    lambda _: {},
    lambda _: (),
    run,
    host_matters=True,
    libraries=PACKAGES["openvino"],
)
