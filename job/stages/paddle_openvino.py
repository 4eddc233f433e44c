"""paddle_openvino: writes the INT8 model for the OpenVINO engine inside Paddle Inference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import QuantizationError
from job.events import Events
from job.host import read_host
from job.manifest import Manifest
from job.profile import onednn_log
from job.profile import record as record_
from job.stages import engine_agreement
from job.stages.engine_agreement import MODEL
from job.stages.engine_packages import PADDLE_OPENVINO, REJECTED
from job.stages.stage import Record, Stage, StageOutput


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write model.pdmodel and model.pdiparams, or return why the model would be wrong.

    The engine is in the default of ``/benchmark/engines``. Therefore an unsuitable model does not
    end the run, but it is not written.
    """
    from job.engine.paddle_openvino.convert import convert
    from job.engine.paddle_openvino.model import open_model

    written = convert(inputs["convert"].path / MODEL, out, has_vnni=read_host().has_vnni)
    try:
        model = open_model(out, 1)
        found = engine_agreement.checked_agreement(manifest, inputs, model)
        kernels = kernels_of(out / MODEL, manifest.model.input_shape)
    except QuantizationError as error:
        return engine_agreement.without_model(out, STAGE.output_dir, error.message, events)
    events.message(
        f"INT8 in the OpenVINO engine against fake-quantized: {found['signal_to_noise_db']:.1f} dB"
    )
    named = dict(zip(("input", "output"), model.names(), strict=True))
    return {**written, REJECTED: None, "agreement": found, "interface": named, **kernels}


def kernels_of(prefix: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the primitives and the ISA that the engine's oneDNN executed.

    Raises:
        QuantizationError: the engine ran no INT8 kernel.
    """
    ran = record_.trace(prefix, record_.PADDLE_OPENVINO, shape)
    int8_primitives = sum(primitive.is_int8 for primitive in ran)
    if not int8_primitives:
        raise QuantizationError("the engine ran no INT8 kernel")
    return {
        "int8_primitives": int8_primitives,
        "primitives": onednn_log.summarize(ran),
        "isa": {"int8": onednn_log.int8_isa(ran)},
    }


STAGE = Stage(
    PADDLE_OPENVINO,
    "int8_paddle_openvino",
    engine_agreement.NEEDS,
    engine_agreement.settings,
    lambda _: (),
    run,
    host_matters=True,
)
