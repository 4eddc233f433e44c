"""The network has PaddleDetection's names, shapes and taps."""

import math

import numpy as np
import pytest

from job.engine.training import programs
from job.engine.training.yolov3 import EMPTY, HEAD_SCOPE, STRIDES, YoloV3

pytestmark = pytest.mark.engine

IN_BLOCK = ("conv0", "conv1", "conv2", "conv3", "route")
WIDTH, CLASSES, SIDE = 0.125, 4, 64


@pytest.fixture(scope="module")
def network():
    """A static program, the network in it, and its outputs."""
    program, startup = programs.Program(), programs.Program()
    with programs.static.program_guard(program, startup), programs.paddle.utils.unique_name.guard():
        image = programs.static.data("image", [None, 3, SIDE, SIDE], "float32")
        layers = YoloV3(classes=CLASSES, anchors=(3, 2, 1), width=WIDTH)
        outputs = layers(image)
    return program, startup, layers, outputs


def sources(program, names, name):
    """The weights of the nearest convolutions that compute a variable."""
    producers = {out: op for op in program.global_block().ops for out in op.output_arg_names}
    op = producers[name]
    if op.type.endswith("conv2d"):
        return [names[op.input("Filter")[0]]]
    slot = "Input" if "Input" in op.input_names else "X"
    return [found for each in op.input(slot) for found in sources(program, names, each)]


def test_the_taps_are_those_of_paddledetection(network):
    program, _, layers, _ = network
    names = {value.name: key for key, value in layers.state_dict().items()}
    inputs = {
        names[op.input("Filter")[0]]: sources(program, names, op.input("Input")[0])
        for op in program.global_block().ops
        if op.type == "conv2d" and op.input("Input")[0] != "image"
    }
    pointwise = "backbone.{}._pointwise_conv._conv.weight"
    transition = "neck.yolo_transition.{}.conv.weight"
    assert [inputs[f"neck.yolo_block.{n}.conv_module.conv0.conv.weight"] for n in range(3)] == [
        [pointwise.format("conv6")],
        [transition.format(0), pointwise.format("conv4_2")],
        [transition.format(1), pointwise.format("conv3_2")],
    ]
    for number in range(3):
        route = f"neck.yolo_block.{number}.conv_module.route.conv.weight"
        assert inputs[f"neck.yolo_block.{number}.tip.conv.weight"] == [route]
        tip = f"neck.yolo_block.{number}.tip.conv.weight"
        assert inputs[f"yolo_head.yolo_output.{number}.weight"] == [tip]


def test_the_names_are_those_of_paddledetection(network):
    names = set(network[2].state_dict())
    batch_norm = ("weight", "bias", "_mean", "_variance")
    blocks = ["2_1", "2_2", "3_1", "3_2", "4_1", "4_2", *(f"5_{n}" for n in range(1, 7)), "6"]
    layers = [("backbone.conv1._conv", "backbone.conv1._batch_norm")]
    for block in blocks:
        for kind in ("_depthwise_conv", "_pointwise_conv"):
            layer = f"backbone.conv{block}.{kind}"
            layers.append((f"{layer}._conv", f"{layer}._batch_norm"))
    necks = [
        f"neck.yolo_block.{n}.{layer}"
        for n in range(3)
        for layer in (*(f"conv_module.{each}" for each in IN_BLOCK), "tip")
    ]
    necks += [f"neck.yolo_transition.{n}" for n in range(2)]
    layers += [(f"{neck}.conv", f"{neck}.batch_norm") for neck in necks]
    expected = {f"{conv}.weight" for conv, _ in layers}
    expected |= {f"{norm}.{field}" for _, norm in layers for field in batch_norm}
    expected |= {f"yolo_head.yolo_output.{n}.{x}" for n in range(3) for x in ("weight", "bias")}
    assert names == expected
    assert len(names) == 241


def test_each_output_has_a_cell_per_stride_and_a_channel_per_value(network):
    outputs = network[3]
    assert [list(output.shape) for output in outputs] == [
        [-1, count * (5 + CLASSES), SIDE // stride, SIDE // stride]
        for count, stride in zip((3, 2, 1), STRIDES, strict=True)
    ]


def test_only_the_heads_are_in_their_name_scope(network):
    program = network[0]
    scoped = [op for op in program.global_block().ops if HEAD_SCOPE in op.attr("op_namescope")]
    assert sum(op.type == "conv2d" for op in scoped) == 3
    assert {op.type for op in scoped} <= {"conv2d", "reshape2", "elementwise_add"}


def test_the_first_objectness_is_low(network):
    program, startup, _, outputs = network
    executor, scope = programs.static.Executor(programs.cpu()), programs.static.Scope()
    with programs.static.scope_guard(scope):
        executor.run(startup)
        image = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype("float32")
        evaluation = program.clone(for_test=True)
        values = executor.run(evaluation, {"image": image}, [out.name for out in outputs])
    for count, value in zip((3, 2, 1), values, strict=True):
        rows = value.reshape(count, 5 + CLASSES, -1)
        np.testing.assert_allclose(rows[:, 4], EMPTY, atol=0.5)
        assert np.abs(np.delete(rows, 4, axis=1)).max() < 0.5


def test_width_scales_backbone_and_neck():
    def parameters(width):
        with programs.static.program_guard(programs.Program(), programs.Program()):
            layers = YoloV3(classes=20, width=width)
            return sum(math.prod(each.shape) for each in layers.parameters())

    # 92.7 MiB of FP32, as PaddleDetection's model for Pascal VOC.
    assert 4 * parameters(1.0) / 2**20 == pytest.approx(92.7, abs=0.3)
    assert parameters(0.5) < 0.27 * parameters(1.0)
