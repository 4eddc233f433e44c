"""Exported detectors: decoding and NMS inside or outside, inputs in any order."""

import numpy as np
import pytest

from job.detection.decode import Head, Selection
from job.engine.training import baseline, programs
from job.engine.training.session import open_session
from job.engine.training.yolov3 import YoloV3
from job.errors import DataError
from job.tasks.detection import detection_task

pytestmark = pytest.mark.engine

CLASSES, SIDE = 3, 64
HEADS = (
    Head(32, ((50.0, 60.0),)),
    Head(16, ((20.0, 30.0), (30.0, 20.0))),
    Head(8, ((8.0, 10.0),)),
)


def export(folder, order, nms):
    """Save a detector as PaddleDetection does; return images and the outputs of its heads."""
    paddle, static = programs.paddle, programs.static
    program, startup, scope = programs.Program(), programs.Program(), static.Scope()
    startup.random_seed = 1
    executor = static.Executor(programs.cpu())
    with static.program_guard(program, startup), paddle.utils.unique_name.guard():
        inputs = {
            "im_shape": static.data("im_shape", [None, 2], "float32"),
            "image": static.data("image", [None, 3, -1, -1], "float32"),
            "scale_factor": static.data("scale_factor", [None, 2], "float32"),
        }
        network = YoloV3(classes=CLASSES, anchors=[len(h.anchors) for h in HEADS], width=0.125)
        network.eval()
        heads = outputs = network(inputs["image"])
        if nms:
            sizes = paddle.cast(paddle.round(inputs["im_shape"] / inputs["scale_factor"]), "int32")
            found = [
                paddle.vision.ops.yolo_box(
                    output, sizes, [int(side) for anchor in head.anchors for side in anchor],
                    CLASSES, 0.005, head.stride,
                )
                for output, head in zip(heads, HEADS, strict=True)
            ]  # fmt: skip
            boxes = paddle.concat([each for each, _ in found], axis=1)
            scores = paddle.transpose(paddle.concat([each for _, each in found], axis=1), [0, 2, 1])
            outputs = paddle.vision.ops.matrix_nms(boxes, scores, 0.01, 0.01, 100, 100)[:2]
    images = np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE)).astype("float32")
    with static.scope_guard(scope):
        executor.run(startup)
        size = np.full((2, 2), SIDE, "float32")
        feed = {"image": images, "im_shape": size, "scale_factor": np.ones_like(size)}
        expected = executor.run(program, feed, heads)
        read = [inputs[name] for name in (order if nms else ["image"])]
        static.save_inference_model(
            str(folder / "exported"), read, list(outputs), executor, program=program
        )
    return images, expected


def open_exported(folder, heads=HEADS):
    task = detection_task(heads, size=(SIDE, SIDE), classes=CLASSES, settings=Selection())
    return open_session(
        name=None, callable_=None, inference_model=folder / "exported", classes=CLASSES,
        input_shape=(3, SIDE, SIDE), width=1.0, seed=0, label_smoothing=0.0, task=task,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("order", "nms"),
    [
        (["im_shape", "image", "scale_factor"], True),
        (["image", "scale_factor", "im_shape"], True),
        (["image"], False),
    ],
)
def test_the_network_in_front_of_the_decoding_is_found(tmp_path, order, nms):
    images, expected = export(tmp_path, order, nms)
    session = open_exported(tmp_path)
    classifier = session.classifier
    with session.active():
        found = session.executor.run(
            classifier.evaluation, {programs.IMAGE: images}, list(classifier.outputs)
        )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    types = {op.type for op in classifier.evaluation.global_block().ops}
    assert types.isdisjoint({"yolo_box", "matrix_nms"})
    (tmp_path / "fp32").mkdir()
    baseline.export(session, tmp_path / "fp32")
    baseline.check_kernels(tmp_path / "fp32", (3, SIDE, SIDE))


def test_anchors_must_be_those_of_the_model(tmp_path):
    export(tmp_path, ["im_shape", "image", "scale_factor"], nms=True)
    other = (*HEADS[:2], Head(8, ((9.0, 10.0),)))
    with pytest.raises(DataError, match=r"8: \[8, 10\].*8: \[9, 10\]") as caught:
        open_exported(tmp_path, other)
    assert "/detection/anchors" in caught.value.hint
