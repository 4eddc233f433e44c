"""openvino, onnxruntime: convert the fake-quantized model for an engine other than Paddle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import QuantizationError
from job.events import Events
from job.manifest import Manifest
from job.stages import engine_agreement
from job.stages.engine_packages import PACKAGES, REJECTED
from job.stages.stage import Record, Stage, StageFunction, StageOutput


def run_openvino(
    manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events
) -> Record:
    """Write model.xml and model.bin, or return why the model would be wrong."""
    from job.engine.openvino import convert

    return _converted("openvino", convert, manifest, inputs, out, events)


def run_onnxruntime(
    manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events
) -> Record:
    """Write model.onnx, or return why the model would be wrong."""
    from job.engine.onnxruntime import convert

    return _converted("onnxruntime", convert, manifest, inputs, out, events)


def _converted(
    name: str,
    engine: Any,
    manifest: Manifest,
    inputs: Mapping[str, StageOutput],
    out: Path,
    events: Events,
) -> Record:
    """Convert the fake-quantized model and compare the outputs of both models.

    The results of the other engines are complete without this one. Therefore an unsuitable model
    does not end the run, but it is not written.
    """
    try:
        record = engine.convert(inputs["convert"].path / engine_agreement.MODEL, out)
        model = engine.open_model(out, 1)
        found = engine_agreement.checked_agreement(manifest, inputs, model)
    except QuantizationError as error:
        return engine_agreement.without_model(out, _output_dir(name), error.message, events)
    events.message(f"INT8 in {name} against fake-quantized: {found['signal_to_noise_db']:.1f} dB")
    named = dict(zip(("input", "output"), model.names(), strict=True))
    return {**record, REJECTED: None, "agreement": found, "interface": named}


def _output_dir(name: str) -> str:
    return f"int8_{name}"


def _stage(name: str, run: StageFunction) -> Stage:
    return Stage(
        name=name,
        output_dir=_output_dir(name),
        needs=engine_agreement.NEEDS,
        settings=engine_agreement.settings,
        files=lambda _: (),
        run=run,
        host_matters=True,
        libraries=PACKAGES[name],
    )


STAGES = (_stage("openvino", run_openvino), _stage("onnxruntime", run_onnxruntime))
