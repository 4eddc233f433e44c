"""openvino, onnxruntime: convert the fake-quantized model for an engine other than Paddle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.packed import open_packed
from job.errors import QuantizationError
from job.events import Events
from job.manifest import Manifest
from job.stages.engine_packages import PACKAGES
from job.stages.stage import CALIBRATION, Record, Stage, StageFunction, StageOutput
from job.stats import relative_error
from job.tasks.task import flat

NEEDS = ("prepare", "convert")
CHECKED_IMAGES = 16
# Correct engines differ by some percent, because they round differently. A wrongly translated
# network differs by about 1.
MAX_ERROR = 0.5


def differences(
    name: str, manifest: Manifest, inputs: Mapping[str, StageOutput], model: Any, events: Events
) -> dict[str, float]:
    """Compare an engine's scores of some images with the fake-quantized model's scores.

    Args:
        name: the engine's name in the manifest.
        manifest: the run's manifest.
        inputs: outputs of prepare and convert.
        model: the model loaded into the engine.
        events: receives the result as a message.

    Returns:
        ``relative_error``: norm of the differences over the norm of the expected scores.

    Raises:
        QuantizationError: the relative error is not below ``MAX_ERROR``.
    """
    from job.engine.inference.predictor import FAKE_QUANTIZED, Predictor, configuration

    shape = manifest.model.input_shape
    images = np.array(
        open_packed(inputs["prepare"].path / CALIBRATION, shape).images[:CHECKED_IMAGES]
    )
    fake = configuration(inputs["convert"].path / "model", FAKE_QUANTIZED, threads=1)
    expected = Predictor(fake).outputs(images)
    error = checked_error(name, flat(model.outputs(images)), flat(expected))
    events.message(
        f"the scores differ from the fake-quantized model's scores by {100 * error:.2f}%"
    )
    return {"relative_error": error}


def checked_error(engine: str, scores: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the relative error of an engine's scores [N, classes].

    Raises:
        QuantizationError: the relative error is not below ``MAX_ERROR``.
    """
    error = relative_error(scores, expected)
    if not error < MAX_ERROR:
        raise QuantizationError(
            f"{engine}: the scores differ from the fake-quantized model's scores by "
            f"{100 * error:.0f}%, expected less than {100 * MAX_ERROR:.0f}%",
            f"Remove {engine} from /benchmark/engines.",
        )
    return error


def run_openvino(
    manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events
) -> Record:
    """Write model.xml and model.bin."""
    from job.engine.openvino import convert

    return _converted("openvino", convert, manifest, inputs, out, events)


def run_onnxruntime(
    manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events
) -> Record:
    """Write model.onnx."""
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
    """Convert the fake-quantized model and compare the scores of both models."""
    record = engine.convert(inputs["convert"].path / "model", out)
    model = engine.open_model(out, 1)
    named = dict(zip(("input", "output"), model.names(), strict=True))
    return {**record, **differences(name, manifest, inputs, model, events), "interface": named}


def _stage(name: str, run: StageFunction) -> Stage:
    return Stage(
        name=name,
        output_dir=f"int8_{name}",
        needs=NEEDS,
        settings=lambda _: {},
        files=lambda _: (),
        run=run,
        host_matters=True,
        libraries=PACKAGES[name],
    )


STAGES = (_stage("openvino", run_openvino), _stage("onnxruntime", run_onnxruntime))
