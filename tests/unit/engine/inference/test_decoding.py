"""Where the network of an exported detector ends, on graphs made by hand."""

from collections.abc import Sequence
from typing import Any

import pytest

from job.detection.decode import Head
from job.engine.inference.decoding import (
    Decoding,
    boxes_of,
    check_heads,
    find_decoding,
    image_of,
)
from job.engine.inference.detector_heads import heads_of
from job.engine.inference.model_graph import GraphOp, ModelGraph
from job.errors import DataError, UsageError

HEADS = (Head(16, ((20.0, 30.0),)), Head(8, ((8.0, 10.0),)))
CLASSES = 3


class Builder:
    """A graph; ``op`` appends an op and returns the name of its output."""

    def __init__(self, inputs: dict[str, Sequence[int]]) -> None:
        self.ops: list[GraphOp] = []
        self.inputs = inputs

    def op(
        self, kind: str, *reads: str, slot: str = "X", out: str = "Out", **attributes: Any
    ) -> str:
        name = f"{kind}_{len(self.ops)}"
        number = len(self.ops)
        self.ops.append(GraphOp(kind, {slot: reads}, {out: (name,)}, attributes, number))
        return name

    def graph(self, *outputs: str) -> ModelGraph:
        return ModelGraph(self.ops, list(self.inputs), outputs, self.inputs, frozenset({"w"}))


def yolo(
    inputs: Sequence[str] = ("im_shape", "image", "scale_factor"), batch: int = -1, **changed: Any
) -> ModelGraph:
    """A detector with two heads, the finest first, which decodes and applies NMS."""
    shapes = {name: [batch, 2] for name in inputs} | {"image": [batch, 3, 64, 64]}
    made = Builder({name: shapes[name] for name in inputs})
    known = [name for name in inputs if name != "image"]
    sizes = made.op("elementwise_div", *known) if known else made.op("shape", "image")
    feature, decoded = "image", []
    for head in reversed(HEADS):
        feature = made.op("conv2d", feature, "w")
        end = made.op("conv2d", feature, "w")
        values = {
            "downsample_ratio": head.stride,
            "anchors": [round(side) for anchor in head.anchors for side in anchor],
            "class_num": CLASSES,
            **changed,
        }
        decoded.append(made.op("yolo_box", end, **values))
        made.ops[-1] = GraphOp(
            "yolo_box",
            {"X": (end,), "ImgSize": (sizes,)},
            made.ops[-1].outputs,
            values,
            made.ops[-1].index,
        )
    boxes = made.op("concat", *decoded)
    found = made.op("multiclass_nms3", boxes)
    return made.graph(made.op("assign", found))


def decoding(graph: ModelGraph) -> Decoding:
    found = find_decoding(graph, "m")
    assert found is not None
    return found


@pytest.mark.parametrize(
    "inputs", [("im_shape", "image", "scale_factor"), ("image", "scale_factor"), ("image",)]
)
def test_the_network_ends_at_the_heads_the_coarsest_first(inputs: Sequence[str]) -> None:
    graph = yolo(inputs)
    found = decoding(graph)
    assert found.image == "image"
    assert found.ends == ("conv2d_5", "conv2d_2")
    kinds = [op.type for op in found.ops]
    assert "conv2d" not in kinds
    # What computes the sizes of images belongs to the decoding.
    assert kinds[0] == ("elementwise_div" if len(inputs) > 1 else "shape")
    check_heads(found, HEADS, CLASSES, "m")
    assert {op.type for op in heads_of(graph, found.ends)} == {"conv2d"}


def test_a_model_with_one_input_that_does_not_decode_has_no_decoding() -> None:
    made = Builder({"x": [-1, 3, 64, 64]})
    graph = made.graph(made.op("conv2d", "x", "w"))
    assert find_decoding(graph, "m") is None
    assert image_of(graph) == "x"


def test_unused_sizes_are_kept_as_inputs() -> None:
    made = Builder({"image": [-1, 3, 64, 64], "im_shape": [-1, 2]})
    head = made.op("conv2d", "image", "w")
    found = decoding(made.graph(head))
    assert (found.ends, found.ops) == ((head,), ())


def test_values_that_depend_on_the_shape_of_the_image_only_are_computed_again() -> None:
    """As in SSD: prior boxes are read from the shape of a feature map."""
    made = Builder({"image": [-1, 3, 64, 64]})
    feature = made.op("conv2d", "image", "w")
    priors = made.op("reshape2", made.op("prior_box", feature, "image"))
    offsets = made.op("conv2d", feature, "w")
    boxes = made.op("box_coder", priors, offsets)
    scores = made.op("softmax", made.op("conv2d", feature, "w"))
    found = decoding(made.graph(made.op("multiclass_nms", boxes, scores)))
    assert set(found.ends) == {feature, offsets, scores}
    assert [op.type for op in found.ops] == ["prior_box", "reshape2", "box_coder", "multiclass_nms"]


def test_an_output_of_the_network_besides_boxes_is_an_end() -> None:
    made = Builder({"image": [-1, 3, 64, 64], "scale_factor": [-1, 2]})
    scores = made.op("conv2d", "image", "w")
    boxes = made.op("conv2d", "image", "w")
    scaled = made.op("elementwise_div", boxes, "scale_factor")
    found = decoding(made.graph(scaled, scores))
    assert found.ends == (boxes, scores)


@pytest.mark.parametrize(
    ("graph", "named"),
    [
        (yolo(("image", "im_info")), "im_info"),
        (yolo(batch=4), "fixed at 4"),
    ],
)
def test_an_input_that_nobody_can_fill_is_named(graph: ModelGraph, named: str) -> None:
    with pytest.raises(DataError, match=named):
        find_decoding(graph, "m")


@pytest.mark.parametrize("kind", ["conv2d", "while"])
def test_layers_and_control_flow_behind_the_decoding_are_named(kind: str) -> None:
    made = Builder({"image": [-1, 3, 64, 64], "im_shape": [-1, 2]})
    proposals = made.op("generate_proposals_v2", made.op("conv2d", "image", "w"), "im_shape")
    with pytest.raises(DataError, match=kind):
        find_decoding(made.graph(made.op(kind, proposals, "w")), "m")


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"anchors": [1, 2]}, "/detection/anchors"),
        ({"downsample_ratio": 4}, "/detection/anchors"),
        ({"class_num": 80}, "/model/classes to 80"),
        ({"scale_x_y": 1.05}, "/task to outputs"),
        ({"iou_aware": True}, "/task to outputs"),
    ],
)
def test_other_heads_than_those_of_the_manifest_are_named(
    changed: dict[str, Any], hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        check_heads(decoding(yolo(**changed)), HEADS, CLASSES, "m")
    assert hint in caught.value.hint


def test_a_decoding_without_yolo_box_is_named() -> None:
    made = Builder({"image": [-1, 3, 64, 64]})
    graph = made.graph(made.op("matrix_nms", made.op("conv2d", "image", "w")))
    with pytest.raises(DataError, match="matrix_nms") as caught:
        check_heads(decoding(graph), HEADS, CLASSES, "m")
    assert "/task to outputs" in caught.value.hint


def test_an_output_without_a_convolution_has_no_head() -> None:
    made = Builder({"image": [-1, 3, 64, 64]})
    head = made.op("conv2d", "image", "w")
    both = made.graph(head, made.op("sigmoid", head))
    assert [op.type for op in heads_of(both, both.outputs)] == ["conv2d", "sigmoid"]
    relu = made.op("relu", head)
    with pytest.raises(UsageError, match=relu):
        heads_of(made.graph(relu), [relu])


def test_the_outputs_of_nms_are_found_behind_copies() -> None:
    made = Builder({"image": [-1, 3, 64, 64]})
    head = made.op("conv2d", "image", "w")
    outputs = {"Index": ("index",), "Out": ("found",), "NmsRoisNum": ("number",)}
    made.ops.append(GraphOp("multiclass_nms3", {"BBoxes": (head,)}, outputs, {}, 1))
    boxes, counts = made.op("scale", "found"), made.op("cast", "number")
    assert boxes_of(made.graph(counts, "index", boxes)) == (boxes, counts)
    assert boxes_of(made.graph(boxes)) == (boxes, None)
    assert boxes_of(made.graph(head)) == (None, None)
