"""Quantization-aware training, and the export of the fake-quantized model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from paddle.static import Program

from job.data.packed import open_packed
from job.engine.inference.saved_model import PREFIX
from job.engine.quantize import data_parallel, fake_quantize, post_training, scales
from job.engine.quantize import pact as clipping
from job.engine.quantize.grid import unsigned_values, use_unsigned_steps
from job.engine.training import loop as training
from job.engine.training import programs
from job.engine.training.baseline import model_bytes
from job.engine.training.checkpoints import BEST, read_arrays, read_best, write_arrays
from job.engine.training.collective import Location, ProcessGroup, SingleProcess
from job.engine.training.session import Recipe, Session, run_recipe
from job.errors import QuantizationError
from job.events import Events

if TYPE_CHECKING:
    from job.data.loader import Loader

CALIBRATION_BATCH = 32


def calibration_batches(path: Path, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """Return the calibration split in batches, float32 [N, C, H, W] each."""
    images = open_packed(path, shape).images
    return [
        np.array(images[start : start + CALIBRATION_BATCH])
        for start in range(0, len(images), CALIBRATION_BATCH)
    ]


def prepare(session: Session, settings: Mapping[str, Any], *, pact: bool) -> None:
    """Prepare the FP32 programs for quantization; must precede the optimizer."""
    for program in (session.classifier.train, session.classifier.evaluation):
        fake_quantize.keep_bias_adds_whole(program)
    if pact:
        clipping.clip_activations(session.classifier, settings)


def quantized_evaluation(session: Session, settings: Mapping[str, Any]) -> Program:
    """Return a copy of the evaluation program with quantize and dequantize ops."""
    evaluation = session.classifier.evaluation.clone(for_test=True)
    quantized = fake_quantize.insert(evaluation, session.scope, settings, for_test=True)
    use_unsigned_steps(quantized)
    return quantized


def train(
    session: Session,
    recipe: Recipe,
    settings: Mapping[str, Any],
    *,
    weights: Path,
    pact: bool,
    calibration: Path | None,
    freeze_bn_stats: bool | None,
    loader: "Loader",
    selection: Path,
    out: Path,
    events: Events,
    meeting: Location | None = None,
) -> dict[str, Any]:
    """Train with fake quantization, and write the best weights to ``best.npz`` in ``out``.

    Args:
        session: the FP32 classifier.
        recipe: settings of the training.
        settings: configuration of ``quant_aware``.
        weights: .npz file of the FP32 weights by variable name.
        pact: clip activations at trained bounds (PACT).
        calibration: packed file for the initial scales; None keeps PaddleSlim's.
        freeze_bn_stats: keep batch norm's running statistics; None: keep in less than one epoch.
        meeting: rank, number of processes, host and port of rank 0's store, if several processes
            train together; this process is rank 0.
        loader, selection, out, events: see :func:`job.engine.training.session.run_recipe`.

    Returns:
        The report's training record; empty if the training stopped before its last step.
    """
    if freeze_bn_stats is None:
        freeze_bn_stats = recipe.is_short(loader.batches_per_epoch)
    with session.active():
        trainer = open_trainer(
            session,
            recipe,
            settings,
            weights=weights,
            pact=pact,
            calibration=calibration,
            freeze_bn_stats=freeze_bn_stats,
            data=loader.identity,
            meeting=meeting,
        )
        record = run_recipe(
            session,
            trainer,
            recipe,
            name="qat",
            loader=loader,
            selection=selection,
            out=out,
            events=events,
        )
    trainer.peers.leave()
    if not record:
        return {}
    return {**record, "freeze_bn_stats": freeze_bn_stats, "calibrated": calibration is not None}


def open_trainer(
    session: Session,
    recipe: Recipe,
    settings: Mapping[str, Any],
    *,
    weights: Path,
    pact: bool,
    calibration: Path | None,
    freeze_bn_stats: bool,
    data: str,
    meeting: Location | None,
) -> training.Trainer:
    """Build the fake-quantized training program of a session; arguments as for :func:`train`."""
    classifier, moving_rate = session.classifier, settings["moving_rate"]
    prepare(session, settings, pact=pact)
    if freeze_bn_stats:
        fake_quantize.freeze_batch_norm(classifier.train)
    rate = recipe.add_optimizer(classifier)
    session.executor.run(classifier.startup)
    programs.write_variables(session.scope, read_arrays(weights))
    program = fake_quantize.insert(classifier.train, session.scope, settings, for_test=False)
    evaluation = quantized_evaluation(session, settings)
    use_unsigned_steps(program, unsigned_values(evaluation))
    if calibration is not None:
        scales.calibrate(
            classifier,
            evaluation,
            program,
            session.scope,
            session.executor,
            calibration_batches(calibration, session.input_shape),
            moving_rate=moving_rate,
        )
    if meeting is not None or moving_rate != fake_quantize.FIXED_RATE:
        fake_quantize.measure_apart(program, moving_rate)
    # The processes connect last, because a collective operation times out after half a minute
    # and calibration can take longer.
    peers, loss = SingleProcess(), classifier.loss
    if meeting is not None:
        peers = ProcessGroup(*meeting)
        loss = data_parallel.share_training(program, loss, peers.size)
    return training.Trainer(
        program=program,
        loss=loss,
        learning_rate=rate,
        evaluation=evaluation,
        logits=classifier.logits,
        scope=session.scope,
        executor=session.executor,
        peers=peers,
        data=data,
    )


def measure_scales(
    session: Session,
    settings: Mapping[str, Any],
    *,
    weights: Path,
    pact: bool,
    calibration: Path,
    out: Path,
) -> int:
    """Measure scales without training, and write weights and scales to ``best.npz`` in ``out``.

    Args:
        session: the FP32 classifier.
        settings: configuration of ``quant_aware``.
        weights: .npz file of the FP32 weights by variable name; the values are kept.
        pact: clip activations at the largest measured value.
        calibration: packed file of the calibration images.
        out: folder for ``best.npz``.

    Returns:
        The number of activation scales measured.
    """
    with session.active():
        prepare(session, settings, pact=pact)
        session.executor.run(session.classifier.startup)
        programs.write_variables(session.scope, read_arrays(weights))
        evaluation = quantized_evaluation(session, settings)
        measured = scales.calibrate(
            session.classifier,
            evaluation,
            None,
            session.scope,
            session.executor,
            calibration_batches(calibration, session.input_shape),
            moving_rate=settings["moving_rate"],
        )
        names = programs.persistables(evaluation)
        write_arrays(out / BEST, programs.read_variables(session.scope, names))
    return measured


def convert(
    session: Session, settings: Mapping[str, Any], *, best: Path, pact: bool, out: Path
) -> dict[str, Any]:
    """Write the fake-quantized model of the best weights to ``out``.

    Args:
        session: the FP32 classifier.
        settings: configuration of ``quant_aware``.
        best: ``best.npz`` of the training.
        pact: whether the training clipped activations.
        out: existing folder.

    Returns:
        The report's record: quantized ops by type, and the model's size in bytes.

    Raises:
        QuantizationError: no op was quantized.
    """
    with session.active():
        prepare(session, settings, pact=pact)
        evaluation = quantized_evaluation(session, settings)
        programs.write_variables(session.scope, read_best(best)[0])
        program = fake_quantize.convert(evaluation, session.scope)
        clipping.strip_clips(program, session.scope)
        counts = require_quantized(program, settings["quantize_op_types"])
        programs.save_inference_model(
            program, out / PREFIX, session.classifier.logits, session.executor
        )
    return {"quantized": counts, "bytes": model_bytes(out)}


def convert_post_training(
    fp32: Path,
    settings: Mapping[str, Any],
    *,
    calibration: Path,
    input_shape: tuple[int, int, int],
    algorithm: str,
    out: Path,
) -> dict[str, Any]:
    """Write a fake-quantized model by post-training quantization.

    Args:
        fp32: folder of the FP32 model.
        settings: configuration of ``quant_aware``.
        calibration: packed file of the calibration images.
        input_shape: (channels, height, width).
        algorithm: method that determines activation ranges, see
            :func:`job.engine.quantize.post_training.post_training`.
        out: existing folder.

    Returns:
        The report's record: quantized ops by type, and the model's size in bytes.

    Raises:
        QuantizationError: no op was quantized.
    """
    program = post_training.post_training(
        fp32 / PREFIX,
        out / PREFIX,
        calibration_batches(calibration, input_shape),
        settings,
        algorithm,
    )
    counts = require_quantized(program, settings["quantize_op_types"])
    return {"quantized": counts, "bytes": model_bytes(out)}


def require_quantized(program: Program, op_types: Sequence[str]) -> dict[str, int]:
    """Return the number of quantized ops by type.

    Raises:
        QuantizationError: no op is quantized.
    """
    counts = fake_quantize.quantized_ops(program)
    if not counts:
        raise QuantizationError(
            f"no op was quantized: the model has no op of type {', '.join(op_types)}, "
            "or all of these match /quantize/not_quant_pattern",
            "Check /quantize/quantize_op_types and /quantize/not_quant_pattern.",
        )
    return counts
