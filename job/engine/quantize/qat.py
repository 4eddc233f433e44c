"""Quantization-aware training, and the export of the fake-quantized model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from paddle.static import Program

from job.data.packed import open_packed
from job.engine.inference.saved_model import PREFIX
from job.engine.quantize import data_parallel, fake_quantize
from job.engine.quantize import pact as clipping
from job.engine.quantize.calibration import Method, Passes, calibrate, lift_bounds
from job.engine.quantize.distillation import (
    distil,
    has_teacher,
    teacher_values,
    use_relative_rates,
)
from job.engine.quantize.error_parts import COMPARED, error_parts, outputs_of
from job.engine.quantize.grid import unsigned_values, use_unsigned_steps
from job.engine.quantize.measurement import Images, Model
from job.engine.quantize.scales import warm_averages
from job.engine.training import loop as training
from job.engine.training import programs
from job.engine.training.baseline import model_bytes
from job.engine.training.checkpoints import read_arrays, read_best, write_arrays
from job.engine.training.collective import Membership, ProcessGroup, SingleProcess
from job.engine.training.evaluation import Scorer, write_outputs
from job.engine.training.session import Recipe, Session, packed_batches, run_recipe
from job.errors import UsageError
from job.events import Events

if TYPE_CHECKING:
    from job.data.loader import Loader

DISTILL = "distill"
# The starting point of training: calibrated scales, rounded weights and corrected biases.
START = "start.npz"


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
    start: Path | None,
    freeze_bn_stats: bool,
    loss: str,
    loader: "Loader",
    selection: Path,
    out: Path,
    events: Events,
    meeting: Membership | None = None,
) -> dict[str, Any]:
    """Train with fake quantization, and write the best weights to ``best.npz`` in ``out``.

    Args:
        session: the FP32 classifier.
        recipe: settings of the training.
        settings: configuration of ``quant_aware``.
        weights: .npz file of the FP32 weights by variable name.
        pact: clip activations at trained bounds (PACT).
        start: file of :func:`write_start`; None starts with PaddleSlim's scales and ``weights``.
        freeze_bn_stats: keep batch norm's running statistics.
        loss: ``labels``, or ``distill`` for the scores of the FP32 network.
        meeting: rank, number of processes, host and port of rank 0's store, if several processes
            train together; this process is rank 0.
        loader, selection, out, events: see :func:`job.engine.training.session.run_recipe`.

    Returns:
        The report's training record; empty if the training stopped before its last step.
    """
    with session.active():
        reference = fp32_outputs(session, weights, selection, out)
        if loss == DISTILL:
            session = replace(session, classifier=distil(session.classifier))
        trainer = open_trainer(
            session,
            recipe,
            settings,
            weights=weights,
            pact=pact,
            start=start,
            freeze_bn_stats=freeze_bn_stats,
            data=loader.identity,
            meeting=meeting,
        )
        trainer = replace(trainer, criterion=session.task.criteria[loss], reference=reference)
        record = run_recipe(
            session, trainer, recipe, name="qat", loader=loader, selection=selection, out=out,
            events=events
        )  # fmt: skip
    trainer.peers.leave()
    if not record:
        return {}
    return {**record, "freeze_bn_stats": freeze_bn_stats, "calibrated": start is not None}


def fp32_outputs(session: Session, weights: Path, selection: Path, out: Path) -> np.ndarray:
    """Return the FP32 outputs for the selection split, [N, values per image].

    A file in ``out`` keeps them for a resumed training.
    """
    path = out / "checkpoints" / "fp32_outputs.npy"
    if not path.exists():
        classifier = session.classifier
        session.executor.run(classifier.startup)
        programs.write_variables(session.scope, read_arrays(weights))
        scorer = Scorer(
            training.with_onednn(classifier.evaluation), classifier.outputs, session.executor
        )
        write_outputs(scorer, packed_batches(selection, session.input_shape), path)
    return np.load(path, mmap_mode="r")


def open_trainer(
    session: Session,
    recipe: Recipe,
    settings: Mapping[str, Any],
    *,
    weights: Path,
    pact: bool,
    start: Path | None,
    freeze_bn_stats: bool,
    data: str,
    meeting: Membership | None,
) -> training.Trainer:
    """Build the fake-quantized training program of a session; arguments as for :func:`train`."""
    classifier, moving_rate = session.classifier, settings["moving_rate"]
    prepare(session, settings, pact=pact)
    if freeze_bn_stats:
        fake_quantize.freeze_batch_norm(classifier.train)
    fp32 = read_arrays(weights)
    values = {**fp32, **(read_arrays(start) if start else {})}
    distils = has_teacher(classifier.train)
    if distils:
        use_relative_rates(classifier.train, values)
    rate = recipe.add_optimizer(classifier)
    session.executor.run(classifier.startup)
    programs.write_variables(session.scope, {**fp32, **(teacher_values(fp32) if distils else {})})
    program = fake_quantize.insert(classifier.train, session.scope, settings, for_test=False)
    evaluation = quantized_evaluation(session, settings)
    use_unsigned_steps(program, unsigned_values(evaluation))
    if start is not None:
        programs.write_variables(session.scope, values)
        programs.write_variables(session.scope, warm_averages(program, values, moving_rate))
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
        outputs=classifier.outputs,
        feeds=session.feeds,
        scope=session.scope,
        executor=session.executor,
        task=session.task,
        criterion=session.task.primary.key,
        peers=peers,
        data=data,
    )


def write_start(
    session: Session,
    settings: Mapping[str, Any],
    method: Method,
    *,
    weights: Path | None,
    pact: bool,
    calibration: Path,
    out: Path,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Calibrate without training, and write weights and scales to ``start.npz`` in ``out``.

    Args:
        session: the FP32 classifier.
        settings: configuration of ``quant_aware``.
        method: how to calibrate.
        weights: .npz file of the FP32 weights by variable name; None keeps the session's.
        pact: clip activations at the measured ranges.
        calibration: packed file of the calibration images.
        out: folder for ``start.npz``.
        progress: receives the name of a phase, the steps done, and all steps of the phase.

    Returns:
        See :func:`job.engine.quantize.calibration.calibrate`; and ``error_parts``, see
        :func:`job.engine.quantize.error_parts.error_parts`.
    """
    classifier = session.classifier
    with session.active():
        prepare(session, settings, pact=pact)
        session.executor.run(classifier.startup)
        if weights is not None:
            programs.write_variables(session.scope, read_arrays(weights))
        evaluation = quantized_evaluation(session, settings)
        images = Images(open_packed(calibration, session.input_shape).images)
        fp32 = Model(training.with_onednn(classifier.evaluation), session.scope, session.executor)
        compared = images.some(COMPARED)
        scored = Passes(compared.count, partial(progress, "fp32 scores"))
        lift_bounds(classifier.evaluation, session.scope)
        reference = outputs_of(fp32, classifier.outputs, compared, scored.add)
        counts = calibrate(
            classifier,
            evaluation,
            session.scope,
            session.executor,
            images,
            settings,
            method,
            partial(progress, "calibrate"),
        )
        quantized = replace(fp32, program=evaluation)
        comparison = Passes(2 * compared.count, partial(progress, "compare"))
        parts = error_parts(quantized, classifier.outputs, compared, reference, comparison.add)
        names = programs.persistables(evaluation)
        write_arrays(out / START, programs.read_variables(session.scope, names))
    return {**counts, "error_parts": parts}


def convert(
    session: Session, settings: Mapping[str, Any], *, best: Path, pact: bool, out: Path
) -> dict[str, Any]:
    """Write the fake-quantized model of the best weights to ``out``.

    Args:
        session: the FP32 classifier.
        settings: configuration of ``quant_aware``.
        best: ``best.npz`` of the training, or ``start.npz``.
        pact: whether the training clipped activations.
        out: existing folder.

    Returns:
        The report's record: quantized ops by type, and the model's size in bytes.

    Raises:
        UsageError: no op was quantized.
    """
    with session.active():
        prepare(session, settings, pact=pact)
        evaluation = quantized_evaluation(session, settings)
        programs.write_variables(session.scope, read_best(best)[0])
        program = fake_quantize.convert(evaluation, session.scope)
        clipping.strip_clips(program, session.scope)
        counts = require_quantized(program, settings["quantize_op_types"])
        programs.save_inference_model(
            program, out / PREFIX, session.classifier.outputs, session.executor
        )
    return {"quantized": counts, "bytes": model_bytes(out)}


def require_quantized(program: Program, op_types: Sequence[str]) -> dict[str, int]:
    """Return the number of quantized ops by type.

    Raises:
        UsageError: no op is quantized.
    """
    counts = fake_quantize.quantized_ops(program)
    if not counts:
        raise UsageError(
            f"/quantize/quantize_op_types: the network has no op of type {', '.join(op_types)}, "
            "or all of these match /quantize/not_quant_pattern, so no op was quantized",
            "Build the network of convolutions or fully connected layers, or change the two keys.",
        )
    return counts
