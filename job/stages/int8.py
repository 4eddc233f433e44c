"""int8: writes the INT8 model and the list of its ops (audit), and checks its kernels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from job.data.packed import open_packed
from job.errors import QuantizationError
from job.events import Events
from job.host import read_host
from job.manifest import Manifest
from job.profile import onednn_log
from job.profile import record as record_
from job.stages.decoding import add_to_int8, explained_heads
from job.stages.int8_fallback import MEASURED_IMAGES, explained, fall_back, record_of
from job.stages.int8_match import (
    TRIAL,
    Match,
    fake_against_fp32,
    fp32_outputs,
)
from job.stages.int8_match import record_of as match_record
from job.stages.model_interface import interface
from job.stages.settings import settings_of
from job.stages.stage import CALIBRATION, Record, Stage, StageOutput
from job.stages.task import task_of
from job.stats import relative_error
from job.tasks.low_agreement import warnings_of
from job.tasks.task import Agreement, Outputs, flat

if TYPE_CHECKING:
    from job.engine.int8.audit import Audit

# Calibration images on which models are compared, and those on which the kernels are checked.
COMPARED_IMAGES, CHECKED_IMAGES = 32, 16
NAMED_DIFFERENCES = 10
# In most networks, two roundings of the same weights change the scores by less than this relative
# error.
MAX_SAVED_ERROR = 0.1
# Two independent roundings differ by the square root of 2 of the error of one.
TWO_ROUNDINGS = 2.0


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write model.pdmodel, model.pdiparams and audit.json."""
    from job.engine.int8 import build as int8
    from job.engine.int8.heads import head_outputs
    from job.engine.training.baseline import model_bytes

    shape = manifest.model.input_shape
    images = np.array(
        open_packed(inputs["prepare"].path / CALIBRATION, shape).images[:COMPARED_IMAGES]
    )
    spec, outcome = manifest.quantize.fallback, None
    if spec is not None:
        outcome = fall_back(manifest, spec, inputs, images[:CHECKED_IMAGES], out, events)
        if outcome is None:
            return {}
    fake = inputs["convert"].path / int8.PREFIX
    skip_ops = (*manifest.int8.skip_ops, *(outcome.ops if outcome else ()))
    halves = not read_host().has_vnni
    fp32 = fp32_outputs(inputs, images)
    match = Match(manifest, fake, images, out / TRIAL, events, skip_ops, halves, fp32)
    built = build(match, out)
    if built is None:
        return {}
    audit, found, kept = built
    left = explained(audit.left_in_fp32, outcome) if outcome else audit.left_in_fp32
    if task_of(manifest).heads:
        left = explained_heads(left, head_outputs(fake, out / int8.PREFIX))
    agreement = match_record(match, found, fake_against_fp32(match), kept)
    for warning in warnings_of(agreement, manifest.quantize.strategy):
        events.message(warning, "warning")
    listed = asdict(audit)
    if not listed["types_in_fp32"]:
        del listed["types_in_fp32"]
    record = {
        **listed,
        "left_in_fp32": explained_by_match(left, kept),
        "fallback": record_of(outcome) if outcome else None,
        "agreement": agreement,
        "differences": diagnose(fake, out / int8.PREFIX, images[:MEASURED_IMAGES], events),
        "bytes": model_bytes(out),
        "interfaces": interfaces(inputs, out, images[:CHECKED_IMAGES]),
        "quantized_op_types": sorted(manifest.quantize.quantize_op_types),
        **what_ran(inputs["baseline"].path / int8.PREFIX, out / int8.PREFIX, shape),
    }
    if manifest.int8.debug:
        from job.engine.compare.draw_graph import draw

        (out / "before.svg").write_text(draw(fake), encoding="utf-8")
        (out / "after.svg").write_text(draw(out / int8.PREFIX), encoding="utf-8")
    add_to_int8(inputs["baseline"], out, images, record)
    (out / "audit.json").write_text(json.dumps(record, indent=2))
    events.message(
        f"ops in INT8: {audit.int8_ops}, left in FP32: {len(left)}; "
        f"INT8 against fake-quantized: {found.signal_to_noise_db:.1f} dB"
    )
    return record


def build(match: Match, out: Path) -> "tuple[Audit, Agreement, list[str]] | None":
    """Write a model that computes what was trained, with some ops in FP32 if necessary.

    Args:
        match: compares models.
        out: existing folder.

    Returns:
        The audit, the agreement with the fake-quantized model, and the ops that the search keeps in
        FP32; None after a stop request.

    Raises:
        QuantizationError: the model cannot be built.
    """
    first: tuple[Audit, Agreement] | None = None
    try:
        first = build_once(match, out, ())
        if match.is_enough(first[1]) or not match.manifest.int8.repair:
            return *first, []
        if match.halving_explains(first[1]):
            # A search would find no op at fault.
            return *first, []
        reason = (
            f"the INT8 model agrees with the fake-quantized model at "
            f"{first[1].signal_to_noise_db:.1f} dB only"
        )
    except QuantizationError as error:
        if not match.manifest.int8.repair:
            raise
        reason = error.message
    match.events.message(f"{reason}; searching for ops to keep in FP32", "warning")
    kept = match.search()
    if kept is None:
        return None
    if not kept and first is not None:
        match.events.message(
            "the search found no op at fault: many ops add small errors", "warning"
        )
        # The gate reports how far the model is from what was trained.
        return *first, []
    try:
        return *build_once(match, out, kept), kept
    except QuantizationError as error:
        if first is None:
            raise
        match.events.message(f"the search found no remedy: {error.message}", "warning")
        # The gate reports how far the model is from what was trained.
        return *build_once(match, out, ()), []


def build_once(match: Match, out: Path, ops: Sequence[str]) -> "tuple[Audit, Agreement]":
    """Write the model with ``ops`` in FP32, and check that packing its weights changed no output.

    Returns:
        The audit, and the agreement with the fake-quantized model.

    Raises:
        QuantizationError: the model cannot be built, or packing its weights changed its outputs.
    """
    from job.engine.int8 import build as int8

    images = match.images[:CHECKED_IMAGES]
    audit, expected = int8.build(
        match.fake,
        out,
        match.manifest.quantize.quantize_op_types,
        images,
        quantized_ops=match.manifest.int8.quantized_ops,
        skip_ops=(*match.skip_ops, *ops),
    )
    saved = int8.outputs_of(out / int8.PREFIX, images)
    check_saved(
        saved,
        expected,
        exact=read_host().has_vnni,
        trained=lambda: tuple(each[:CHECKED_IMAGES] for each in match.trained(ops)),
    )
    return audit, match.of(out / int8.PREFIX, ops)


def explained_by_match(
    left: Sequence[Mapping[str, str]], kept: Sequence[str]
) -> list[Mapping[str, str]]:
    """Return the ops in FP32, with the reason for the ops that the search selected."""
    reason = "with this op in INT8, the model differs too much from the fake-quantized model"
    return [{**each, "reason": reason if each["op"] in kept else each["reason"]} for each in left]


def diagnose(
    fake: Path, int8: Path, images: NDArray[np.float32], events: Events
) -> list[dict[str, Any]]:
    """Return the INT8 ops with the largest errors; empty if Paddle cannot measure them."""
    from job.engine.compare.differences import differences
    from job.engine.inference.failure import reason_of

    try:
        measured = differences(fake, int8, images)
    except (ValueError, RuntimeError, KeyError) as error:
        # The measurement explains the model and does not change it.
        events.message(f"the error of each op cannot be measured: {reason_of(error)}", "warning")
        return []
    return [asdict(each) for each in measured[:NAMED_DIFFERENCES]]


def check_saved(
    saved: Outputs, expected: Outputs, *, exact: bool, trained: Callable[[], Outputs]
) -> None:
    """Compare the outputs of the model before and after it was saved.

    Args:
        saved: outputs of the model that was loaded from disk.
        expected: outputs for the same images before the weights were packed.
        exact: require equal bits. Without AVX512_VNNI, outputs can differ after loading. A likely
            cause is that oneDNN then halves some weights and rounds odd weights.
        trained: returns the outputs of the fake-quantized model. A network that multiplies the
            rounding of weights differs from them about as much.

    Raises:
        QuantizationError: the outputs differ.
    """
    error = relative_error(flat(saved), flat(expected))
    bound = 0.0 if exact else MAX_SAVED_ERROR
    if not exact and error > bound:
        bound = max(bound, TWO_ROUNDINGS * relative_error(flat(expected), flat(trained())))
    if error > bound or not np.isfinite(error):
        raise QuantizationError(
            f"the saved INT8 model computes other outputs than before it was saved: relative "
            f"error {error:.2g}, expected at most {bound:.2g}",
            "Report this as a bug, with the manifest and the output of `job doctor`.",
        )


def interfaces(
    inputs: Mapping[str, StageOutput], out: Path, images: NDArray[np.float32]
) -> dict[str, Any]:
    """Return names and meaning of input and output of the FP32 and the INT8 model."""
    from job.engine.inference import predictor
    from job.engine.int8 import build as int8

    fp32 = inputs["baseline"].path / int8.PREFIX
    return {
        "fp32": interface(fp32, predictor.ONEDNN, images),
        "int8": interface(out / int8.PREFIX, predictor.INT8, images),
    }


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
        "isa": {"fp32": onednn_log.isa(fp32_ran), "int8": onednn_log.int8_isa(ran)},
    }


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change which ops run in INT8."""
    fallback = manifest.quantize.fallback
    return {
        "task": manifest.task,
        "quantize": {
            "quantize_op_types": manifest.quantize.quantize_op_types,
            "fallback": settings_of(fallback) if fallback else None,
        },
        "int8": settings_of(manifest.int8),
        "gates": {"int8_matches_fake": manifest.gates.int8_matches_fake},
    }


NEEDS = ("prepare", "baseline", "convert")
STAGE = Stage("int8", "int8", NEEDS, settings, lambda _: (), run, host_matters=True)
