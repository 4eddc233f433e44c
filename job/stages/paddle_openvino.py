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
from job.stages.engine_agreement import (
    MODEL,
    NEEDS,
    agreement_with_fake,
    low_agreement,
    settings,
    without_model,
)
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
        found = agreement_with_fake(manifest, inputs, model)
    except QuantizationError as error:
        return without_model(out, STAGE.output_dir, error.message, events)
    kernels = kernels_of(out / MODEL, manifest.model.input_shape)
    reason = fault(found, kernels, manifest.gates.int8_matches_fake)
    if reason:
        return without_model(out, STAGE.output_dir, reason, events)
    events.message(
        f"INT8 in the OpenVINO engine against fake-quantized: {found['signal_to_noise_db']:.1f} dB"
    )
    named = dict(zip(("input", "output"), model.names(), strict=True))
    return {**written, REJECTED: None, "agreement": found, "interface": named, **kernels}


def kernels_of(prefix: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the primitives and the ISA that the engine's oneDNN executed."""
    ran = record_.trace(prefix, record_.PADDLE_OPENVINO, shape)
    return {
        "int8_primitives": sum(primitive.is_int8 for primitive in ran),
        "primitives": onednn_log.summarize(ran),
        "isa": {"int8": onednn_log.int8_isa(ran)},
    }


def fault(
    found: Mapping[str, float], kernels: Mapping[str, Any], bound: float | None
) -> str | None:
    """Return why a model must not be used; None for a correct model.

    Args:
        found: agreement with the fake-quantized model.
        kernels: the executed kernels.
        bound: lowest signal-to-noise ratio in decibels, ``/gates/int8_matches_fake``.
    """
    if not kernels["int8_primitives"]:
        return low_agreement(found, bound) or "the engine ran no INT8 kernel"
    return low_agreement(found, bound)


STAGE = Stage(
    PADDLE_OPENVINO,
    "int8_paddle_openvino",
    NEEDS,
    settings,
    lambda _: (),
    run,
    host_matters=True,
)
