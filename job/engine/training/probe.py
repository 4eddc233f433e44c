"""Measures the speed of a network for a second: FP32 inference and training steps."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from job.engine.training import loop as training
from job.engine.training.collective import SingleProcess
from job.engine.training.evaluation import Scorer, TrainingBatch
from job.engine.training.session import Recipe, Session
from job.engine.training.stepper import Stepper

_INFERENCE_BATCH = 8
# A step takes about this multiple of the inference of its images.
_TRAINING_FACTOR = 10
_LAYERS = ("conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul", "matmul_v2", "fc")


def measure(
    session: Session, recipe: Recipe | None, *, batch_size: int, seconds: float
) -> dict[str, Any]:
    """Measure the network of a session.

    Args:
        session: the classifier, with any weights.
        recipe: settings of a training; None: no training step is measured.
        batch_size: images of a training step. A step that would take longer than ``seconds`` is
            measured with fewer images.
        seconds: how long to measure inference, and how long to measure training.

    Returns:
        ``forward`` and ``train`` in seconds per image, and ``layers``, the number of layers with
        weights. ``train`` is None without recipe, and for detectors.
    """
    classifier = session.classifier
    random = np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        return random.standard_normal((count, *session.input_shape)).astype("float32")

    names = set(classifier.weight_names.values())
    ops = classifier.evaluation.global_block().ops
    layers = sum(op.type in _LAYERS and not names.isdisjoint(op.input_arg_names) for op in ops)
    with session.active():
        program = training.with_onednn(classifier.evaluation)
        scorer = Scorer(program, classifier.outputs, session.executor)
        few = images(_INFERENCE_BATCH)
        forward = _seconds_per_call(lambda: scorer.run(few), seconds) / _INFERENCE_BATCH
        train = None
        # A detector's loss needs the boxes of real images.
        if recipe is not None and not session.task.heads:
            stepper = _stepper(session, recipe)
            count = max(2, min(batch_size, int(seconds / (_TRAINING_FACTOR * forward))))
            batch = TrainingBatch(images(count), (np.zeros(count, "int64"),))
            train = _seconds_per_call(lambda: stepper.run(batch, 0.0, 0), seconds) / count
    return {"forward": forward, "train": train, "layers": layers}


def _stepper(session: Session, recipe: Recipe) -> Stepper:
    classifier = session.classifier
    rate = recipe.add_optimizer(classifier)
    session.executor.run(classifier.startup)
    return Stepper(
        training.with_onednn(classifier.train),
        classifier.loss,
        rate,
        session.feeds,
        session.scope,
        session.executor,
        SingleProcess(),
        recipe.seed,
    )


def _seconds_per_call(call: Callable[[], object], seconds: float) -> float:
    """Return the mean time of calls, after a first call that is not timed."""
    call()
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < seconds:
        call()
        calls += 1
    return (time.perf_counter() - started) / calls
