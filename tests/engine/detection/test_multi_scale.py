"""Training images of several sizes go through one training program."""

import numpy as np
import pytest
import tiny

from job.detection.annotations import Annotations
from job.detection.decode import Head, Selection
from job.detection.targets import targets
from job.engine.training.collective import SingleProcess
from job.engine.training.evaluation import TrainingBatch
from job.engine.training.loop import with_onednn
from job.engine.training.programs import persistables, read_variables, write_variables
from job.engine.training.schedule import Schedule
from job.engine.training.session import open_session
from job.engine.training.stepper import Stepper
from job.tasks.detection import detection_task

# Two networks are built and compiled.
pytestmark = [pytest.mark.engine, pytest.mark.full]

CLASSES = 2
HEADS = tuple(Head(stride, ((2.0 * stride, 2.0 * stride),)) for stride in (32, 16, 8))


def batch(side: int) -> TrainingBatch:
    images = np.random.default_rng(side).normal(0, 1, (2, 3, side, side)).astype("float32")
    objects = [
        Annotations.of([[3, 5, 20, 18], [10, 8, side, side]], [0, 1]),
        Annotations.of([[30, 20, 60, 62]], [1]),
    ]
    found = targets(objects, (side, side))
    return TrainingBatch(images, (found.boxes, found.classes))


def losses(input_side: int, *sides: int) -> list[float]:
    """The losses of steps with a learning rate of 0."""
    session = open_session(
        name="yolov3_mobilenet_v1", callable_=None, inference_model=None, classes=CLASSES,
        input_shape=(3, input_side, input_side), width=0.125, seed=0, label_smoothing=0.0,
        task=detection_task(
            HEADS, size=(input_side, input_side), classes=CLASSES, settings=Selection()
        ),
    )  # fmt: skip
    classifier = session.classifier
    schedule = Schedule("constant", 0.0, (), 1.0, 0.0)
    with session.active():
        rate = tiny.recipe(optimizer="adam", weight_decay=0.0, schedule=schedule).add_optimizer(
            classifier
        )
        initial = read_variables(session.scope, persistables(classifier.evaluation))
        session.executor.run(classifier.startup)
        write_variables(session.scope, initial)
        stepper = Stepper(
            with_onednn(classifier.train), classifier.loss, rate, session.feeds, session.scope,
            session.executor, SingleProcess(), 0,
        )  # fmt: skip
        return [stepper.run(batch(side), 0.0, step) for step, side in enumerate(sides)]


def test_another_size_has_the_loss_of_a_network_that_was_built_for_it() -> None:
    first, larger, again = losses(64, 64, 96, 64)
    assert again == pytest.approx(first, rel=1e-4)
    (expected,) = losses(96, 96)
    assert larger == pytest.approx(expected, rel=1e-4)
    assert larger != pytest.approx(first, rel=1e-2)
