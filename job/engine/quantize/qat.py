"""Quantization-aware training, and the fake-quantized model that it leads to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from paddle.static import Program

from job.data.packed import open_packed
from job.engine.inference.saved_model import PREFIX
from job.engine.quantize import data_parallel, fake_quantize, scales
from job.engine.quantize import pact as clipping
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
    """The calibration split in batches, float32 [N, C, H, W] each."""
    images = open_packed(path, shape).images
    return [
        np.array(images[start : start + CALIBRATION_BATCH])
        for start in range(0, len(images), CALIBRATION_BATCH)
    ]


def prepare(session: Session, settings: Mapping[str, Any], *, pact: bool) -> None:
    """Ready the FP32 programs for quantization, before the optimizer is added."""
    for program in (session.classifier.train, session.classifier.evaluation):
        fake_quantize.keep_bias_adds_whole(program)
    if pact:
        clipping.clip_activations(session.classifier, settings)


def quantized_evaluation(session: Session, settings: Mapping[str, Any]) -> Program:
    """The evaluation program with quantize/dequantize ops inserted."""
    evaluation = session.classifier.evaluation.clone(for_test=True)
    return fake_quantize.insert(evaluation, session.scope, settings, for_test=True)


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
    """Train with fake quantization; leaves ``best.npz`` in ``out``.

    Args:
        session: the FP32 classifier.
        recipe: how to train.
        settings: ``quant_aware``'s configuration.
        weights: the FP32 weights by variable name.
        pact: clip activations at a trained bound.
        calibration: packed file to measure initial scales on; None starts them at PaddleSlim's.
        freeze_bn_stats: keep batch norm's running statistics; None: if shorter than one epoch.
        loader: training batches.
        selection: packed file of the selection split.
        out: folder for checkpoints, metrics and ``best.npz``.
        events: told of progress.
        meeting: where the processes meet, if several train together; this one leads.

    Returns:
        The training's record; empty when it was asked to stop.
    """
    classifier, moving_rate = session.classifier, settings["moving_rate"]
    frozen = freeze_bn_stats
    if frozen is None:
        frozen = recipe.steps(loader.batches_per_epoch) < loader.batches_per_epoch
    with session.active():
        prepare(session, settings, pact=pact)
        if frozen:
            fake_quantize.freeze_batch_norm(classifier.train)
        rate = recipe.add_optimizer(classifier)
        session.executor.run(classifier.startup)
        programs.write_variables(session.scope, read_arrays(weights))
        program = fake_quantize.insert(classifier.train, session.scope, settings, for_test=False)
        evaluation = quantized_evaluation(session, settings)
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
        # Only now: a collective operation waits for half a minute, and this took its time.
        peers, loss = SingleProcess(), classifier.loss
        if meeting is not None:
            peers = ProcessGroup(*meeting)
            loss = data_parallel.share_training(program, loss, peers.size)
        trainer = training.Trainer(
            program=program,
            loss=loss,
            learning_rate=rate,
            evaluation=evaluation,
            logits=classifier.logits,
            scope=session.scope,
            executor=session.executor,
            peers=peers,
            data=loader.identity,
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
    peers.leave()
    if not record:
        return {}
    return {**record, "freeze_bn_stats": frozen, "calibrated": calibration is not None}


def measure_scales(
    session: Session,
    settings: Mapping[str, Any],
    *,
    weights: Path,
    pact: bool,
    calibration: Path,
    out: Path,
) -> int:
    """Quantize without a step of training; leaves ``best.npz`` in ``out``.

    Args:
        session: the FP32 classifier.
        settings: ``quant_aware``'s configuration.
        weights: the FP32 weights by variable name, which stay as they are.
        pact: clip activations at the largest value measured.
        calibration: packed file to measure scales on.
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
    """Write the fake-quantized model of an FP32 model that was not trained further."""
    program = fake_quantize.post_training(
        fp32 / PREFIX,
        out / PREFIX,
        calibration_batches(calibration, input_shape),
        settings,
        algorithm,
    )
    counts = require_quantized(program, settings["quantize_op_types"])
    return {"quantized": counts, "bytes": model_bytes(out)}


def require_quantized(program: Program, op_types: Sequence[str]) -> dict[str, int]:
    """Quantized ops by type.

    Raises:
        QuantizationError: there are none.
    """
    counts = fake_quantize.quantized_ops(program)
    if not counts:
        raise QuantizationError(
            f"no op was quantized; the model has none of {', '.join(op_types)}, "
            "or all of them match /quantize/not_quant_pattern",
            "Look at both settings.",
        )
    return counts
