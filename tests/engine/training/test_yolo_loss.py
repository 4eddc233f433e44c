"""The loss of YOLOv3: padding, assignment of objects to heads, and a few steps of training."""

import numpy as np
import pytest

from job.detection.annotations import Annotations
from job.detection.decode import Head, Selection, detections
from job.detection.targets import targets
from job.engine.training import loop, programs
from job.engine.training.yolo_loss import BOXES, CLASSES, append_yolo_loss
from job.engine.training.yolov3 import STRIDES, YoloV3

pytestmark = pytest.mark.engine

SIDE, COUNT = 64, 3
ANCHORS = (((40.0, 40.0),), ((20.0, 20.0),), ((8.0, 8.0),))
HEADS = [Head(stride, anchors) for stride, anchors in zip(STRIDES, ANCHORS, strict=True)]
SMALL, LARGE = [4, 4, 13, 12], [10, 20, 52, 60]


def feed(*annotations):
    found = targets(annotations, (SIDE, SIDE))
    return {BOXES: found.boxes, CLASSES: found.classes}


@pytest.fixture(scope="module")
def loss_of():
    """Return the loss and its gradients with respect to given head outputs."""
    program = programs.Program()
    with programs.static.program_guard(program):
        outputs = [
            programs.static.data(f"head{stride}", [None, 5 + COUNT, SIDE // stride, SIDE // stride])
            for stride in STRIDES
        ]
        for output in outputs:
            output.stop_gradient = False
        loss = append_yolo_loss(outputs, HEADS, classes=COUNT)
        gradients = programs.static.gradients(loss, outputs)
    executor = programs.static.Executor(programs.cpu())

    def run(targets_):
        images = len(targets_[BOXES])
        values = {
            # Objectness is so low that cells without objects cause no loss.
            f"head{stride}": np.full(
                (images, 5 + COUNT, SIDE // stride, SIDE // stride), -30, "float32"
            )
            for stride in STRIDES
        }
        loss_, *found = executor.run(program, {**values, **targets_}, [loss, *gradients])
        return float(loss_), found

    return run


def test_padding_has_no_loss(loss_of):
    one = Annotations.of([LARGE], [1])
    none, _ = loss_of(feed(Annotations.none()))
    alone, _ = loss_of(feed(one))
    assert none == pytest.approx(0, abs=1e-3)
    assert alone > 1
    padded = {
        name: np.pad(value, [(0, 0), (0, 5), *[(0, 0)] * (value.ndim - 2)])
        for name, value in feed(one).items()
    }
    assert loss_of(padded)[0] == pytest.approx(alone, rel=1e-6)


def test_the_loss_is_the_mean_over_images(loss_of):
    one = Annotations.of([LARGE], [1])
    assert loss_of(feed(one, Annotations.none()))[0] == pytest.approx(
        loss_of(feed(one))[0] / 2, rel=1e-4
    )


@pytest.mark.parametrize(("box", "head"), [(LARGE, 0), (SMALL, 2)])
def test_an_object_belongs_to_the_head_of_its_best_anchor(loss_of, box, head):
    _, gradients = loss_of(feed(Annotations.of([box], [1])))
    assert [bool(np.abs(each).max() > 0.1) for each in gradients] == [n == head for n in range(3)]


def test_training_finds_the_objects_of_an_image():
    image = np.zeros((1, 3, SIDE, SIDE), "float32")
    objects = Annotations.of([SMALL, LARGE], [2, 1])
    for number, (x0, y0, x1, y1) in enumerate(objects.boxes.astype(int)):
        image[0, number, y0:y1, x0:x1] = 1
    program, startup = programs.Program(), programs.Program()
    startup.random_seed = 3
    with (
        programs.static.program_guard(program, startup),
        programs.paddle.utils.unique_name.guard(),
    ):
        data = programs.static.data("image", [None, 3, SIDE, SIDE], "float32")
        outputs = YoloV3(classes=COUNT, anchors=(1, 1, 1), width=0.25)(data)
        loss = append_yolo_loss(outputs, HEADS, classes=COUNT)
    rate = loop.add_optimizer(
        program, startup, loss.name, name="adam", momentum=0.9, weight_decay=0.0
    )
    executor, scope = programs.static.Executor(programs.cpu()), programs.static.Scope()
    with programs.static.scope_guard(scope):
        executor.run(startup)
        programs.write_variables(scope, {rate: np.array([3e-3], "float32")})
        inputs = {"image": image, **feed(objects)}
        for _ in range(60):
            *values, last = executor.run(program, inputs, [*outputs, loss])
    assert last < 5
    (found,) = detections(values, HEADS, [(SIDE, SIDE)], Selection(score_threshold=0.5))
    assert sorted(found.classes.tolist()) == [1, 2]
    for box, label in zip(found.boxes, found.classes, strict=True):
        (expected,) = objects.boxes[objects.classes == label]
        np.testing.assert_allclose(box, expected, atol=4)
