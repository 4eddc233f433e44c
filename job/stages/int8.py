"""int8: the model that oneDNN runs in INT8, its audit, and the proof that INT8 kernels ran."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job import primitives
from job.errors import QuantizationError
from job.events import Events
from job.manifest import Manifest
from job.stages.inputs import CALIBRATION, settings_of
from job.stages.stage import Record, Stage, StageOutput

CHECKED_IMAGES = 16


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write model.pdmodel, model.pdiparams and audit.json."""
    from job.engine import int8, predictor
    from job.engine.baseline import model_bytes
    from job.engine.qat import calibration_batches

    shape = manifest.model.input_shape
    images = calibration_batches(inputs["prepare"].path / CALIBRATION, shape)[0][:CHECKED_IMAGES]
    fake = inputs["convert"].path / int8.PREFIX
    audit, expected = int8.build(
        fake,
        out,
        manifest.quantize.quantize_op_types,
        images,
        quantized_ops=manifest.int8.quantized_ops,
        skip_ops=manifest.int8.skip_ops,
    )
    saved = predictor.Predictor(
        predictor.configuration(out / int8.PREFIX, predictor.INT8, threads=1)
    ).scores(images)
    if not (saved == expected).all():
        raise QuantizationError(
            "the saved INT8 model gives other scores than the model that it was saved from",
            "This is a fault of the installed Paddle: run `job doctor`.",
        )
    ran = primitives.trace(out / int8.PREFIX, predictor.INT8, shape)
    fp32_ran = primitives.trace(inputs["baseline"].path / int8.PREFIX, predictor.ONEDNN, shape)
    if not any(primitive.is_int8 for primitive in ran):
        raise QuantizationError(
            "no INT8 kernel ran: oneDNN executed " + ", ".join(sorted({p.kind for p in ran})),
            "Run `job doctor`; it names the kernels of a known model.",
        )
    record = {
        **asdict(audit),
        "quantized_op_types": sorted(manifest.quantize.quantize_op_types),
        "primitives": primitives.summarize(ran),
        "isa": {"fp32": primitives.isa(fp32_ran), "int8": primitives.isa(ran)},
        "bytes": model_bytes(out),
    }
    (out / "audit.json").write_text(json.dumps(record, indent=2))
    events.message(f"{audit.int8_ops} ops in INT8, {audit.fp32_ops} left in FP32")
    return record


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Which ops may run in INT8."""
    return {
        "quantize": {"quantize_op_types": manifest.quantize.quantize_op_types},
        "int8": settings_of(manifest.int8),
    }


NEEDS = ("prepare", "baseline", "convert")
STAGE = Stage("int8", "int8", NEEDS, settings, lambda _: (), run, host_matters=True)
