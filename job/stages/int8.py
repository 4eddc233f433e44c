"""int8: writes the INT8 model and the list of its operators (audit), and checks its kernels."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.errors import QuantizationError
from job.events import Events
from job.host import read_host
from job.manifest import Manifest
from job.profile import onednn_log
from job.profile import record as record_
from job.stages.fallback_search import FallbackResult
from job.stages.int8_fallback import MEASURED_IMAGES, explained, fall_back, record_of
from job.stages.settings import settings_of
from job.stages.stage import CALIBRATION, Record, Stage, StageOutput

CHECKED_IMAGES = 16
NAMED_DIFFERENCES = 10
# Two roundings of the same weight differ by this share of the scores at most.
MAX_SAVED_ERROR = 0.1


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write model.pdmodel, model.pdiparams and audit.json."""
    from job.engine.int8 import build as int8
    from job.engine.quantize.qat import calibration_batches

    shape = manifest.model.input_shape
    images = calibration_batches(inputs["prepare"].path / CALIBRATION, shape)[0][:CHECKED_IMAGES]
    spec, outcome = manifest.quantize.fallback, None
    if spec is not None:
        outcome = fall_back(manifest, spec, inputs, images, out, events)
        if outcome is None:
            return {}
    audit = build(manifest, inputs["convert"].path, out, images, outcome)
    record = {
        **audit,
        "quantized_op_types": sorted(manifest.quantize.quantize_op_types),
        **what_ran(inputs["baseline"].path / int8.PREFIX, out / int8.PREFIX, shape),
    }
    if manifest.int8.debug:
        from job.engine.compare.draw_graph import draw

        fake = inputs["convert"].path / int8.PREFIX
        (out / "before.svg").write_text(draw(fake), encoding="utf-8")
        (out / "after.svg").write_text(draw(out / int8.PREFIX), encoding="utf-8")
    (out / "audit.json").write_text(json.dumps(record, indent=2))
    events.message(
        f"{audit['int8_ops']} ops run in INT8; {audit['fp32_ops']} convolutions and matrix "
        "products run in FP32"
    )
    return record


def build(
    manifest: Manifest,
    fake_quantized: Path,
    out: Path,
    images: NDArray[np.float32],
    outcome: FallbackResult | None,
) -> dict[str, Any]:
    """Write the model, and check that packing its weights did not change its scores.

    Args:
        manifest: sets the ops that run in INT8.
        fake_quantized: folder of the fake-quantized model.
        out: existing folder.
        images: float32 [N, C, H, W], for the comparison.
        outcome: result of the fallback search, if any.

    Returns:
        The audit for the report.

    Raises:
        QuantizationError: the model cannot be built, or packing its weights changed its scores.
    """
    from job.engine.compare.differences import differences
    from job.engine.inference import predictor
    from job.engine.int8 import build as int8
    from job.engine.training.baseline import model_bytes

    fake, prefix = fake_quantized / int8.PREFIX, out / int8.PREFIX
    audit, expected = int8.build(
        fake,
        out,
        manifest.quantize.quantize_op_types,
        images,
        quantized_ops=manifest.int8.quantized_ops,
        skip_ops=(*manifest.int8.skip_ops, *(outcome.ops if outcome else ())),
    )
    saved = predictor.Predictor(predictor.configuration(prefix, predictor.INT8, threads=1))
    check_saved(saved.scores(images), expected, exact=read_host().has_vnni)
    measured = differences(fake, prefix, images[:MEASURED_IMAGES])
    left = audit.left_in_fp32
    return {
        **asdict(audit),
        "left_in_fp32": explained(left, outcome) if outcome else left,
        "fallback": record_of(outcome) if outcome else None,
        "differences": [asdict(each) for each in measured[:NAMED_DIFFERENCES]],
        "bytes": model_bytes(out),
    }


def check_saved(saved: NDArray[np.float32], expected: NDArray[np.float32], *, exact: bool) -> None:
    """Compare the scores [N, classes] of the model before and after it was saved.

    Args:
        saved: scores of the model that was loaded from disk.
        expected: scores of the same images before the weights were packed.
        exact: require equal bits. Without AVX512_VNNI, scores can differ after loading. A likely
            cause is that oneDNN then halves some weights and rounds odd weights.

    Raises:
        QuantizationError: the scores differ.
    """
    error = float(np.linalg.norm(saved - expected) / (np.linalg.norm(expected) or 1.0))
    if error > (0.0 if exact else MAX_SAVED_ERROR) or not np.isfinite(error):
        raise QuantizationError(
            f"the saved INT8 model computes other scores than before it was saved: relative "
            f"error {error:.2g}, expected at most {0.0 if exact else MAX_SAVED_ERROR}",
            "Report this as a bug, with the manifest and the output of `job doctor`.",
        )


def what_ran(fp32: Path, int8: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the primitives that oneDNN executed, and the ISA of both models.

    Args:
        fp32: prefix of the FP32 model.
        int8: prefix of the INT8 model.
        shape: (channels, height, width).

    Raises:
        QuantizationError: no INT8 kernel ran.
    """
    from job.engine.inference import predictor

    ran = record_.trace(int8, predictor.INT8, shape)
    fp32_ran = record_.trace(fp32, predictor.ONEDNN, shape)
    if not any(primitive.is_int8 for primitive in ran):
        raise QuantizationError(
            "oneDNN ran no INT8 kernel of the INT8 model; it ran "
            + ", ".join(sorted({p.kind for p in ran})),
            "Run `job doctor` to see which INT8 kernels run for a small test model.",
        )
    return {
        "primitives": onednn_log.summarize(ran),
        "isa": {"fp32": onednn_log.isa(fp32_ran), "int8": onednn_log.isa(ran)},
    }


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change which ops run in INT8."""
    fallback = manifest.quantize.fallback
    return {
        "quantize": {
            "quantize_op_types": manifest.quantize.quantize_op_types,
            "fallback": settings_of(fallback) if fallback else None,
        },
        "int8": settings_of(manifest.int8),
    }


NEEDS = ("prepare", "baseline", "convert")
STAGE = Stage("int8", "int8", NEEDS, settings, lambda _: (), run, host_matters=True)
