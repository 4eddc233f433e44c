"""Finds where the network of an exported detector ends and decoding and NMS begin.

Exported detectors compute boxes inside the model. They read the sizes of images besides the images.
Only the network in front of decoding and NMS is trained and quantized. The module does not import
Paddle, so that planning can reject a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from job.engine.inference.model_graph import GraphOp, ModelGraph
from job.errors import DataError

if TYPE_CHECKING:
    from job.detection.decode import Head

Floats = npt.NDArray[np.float32]

# Inputs of PaddleDetection's exports besides the image, float32 [N, 2]: height and width of the
# model's input in pixels, and their ratios to height and width of the image file.
IM_SHAPE, SCALE_FACTOR = "im_shape", "scale_factor"
SIZES = (IM_SHAPE, SCALE_FACTOR)
YOLO_BOX = "yolo_box"
NMS = ("multiclass_nms", "multiclass_nms2", "multiclass_nms3", "matrix_nms")
_DECODING = (YOLO_BOX, "box_coder", "box_clip", "bipartite_match", "locality_aware_nms", *NMS)
# Ops whose results depend on the shape of an input only.
_OF_SHAPE = (
    *("shape", "size", "fill_any_like", "fill_constant_batch_size_like"),
    *("prior_box", "density_prior_box", "anchor_generator"),
)
# Ops that training and quantization change. Behind the decoding, none of them would be quantized.
_LAYERS = (
    *("conv2d", "depthwise_conv2d", "conv2d_transpose", "deformable_conv", "deformable_conv_v1"),
    *("fc", "mul", "matmul", "matmul_v2", "lookup_table_v2", "rnn", "lstm", "gru"),
)
_BLOCKS = ("while", "conditional_block", "conditional_block_infer", "select_input")
_COPIES = ("assign", "scale", "cast", "reshape2", "squeeze2", "unsqueeze2", "share_data")
_WITHOUT_NMS = "Export the detector without decoding and NMS."
_AS_OUTPUTS = (
    "Set /task to outputs and /quantize/strategy to post. The network in front of decoding and NMS "
    "is then quantized, and the deployed model contains both."
)
_IMAGE_DIMENSIONS = 4
_BATCHES = (-1, 1)


@dataclass(frozen=True, eq=False)
class Decoding:
    """The part of an exported detector behind its network.

    Attributes:
        image: name of the image input.
        ends: the variables where the network ends. Of YOLO heads, the coarsest is first.
        ops: the ops that compute the outputs from ``ends`` and from the sizes of images.
        kinds: types of the ops that decode boxes or apply NMS, in the order of the ops.
    """

    image: str
    ends: tuple[str, ...]
    ops: tuple[GraphOp, ...]
    kinds: tuple[str, ...]

    @property
    def yolo_boxes(self) -> tuple[GraphOp, ...]:
        """The ops that decode YOLO heads."""
        return tuple(op for op in self.ops if op.type == YOLO_BOX)


def find_decoding(graph: ModelGraph, source: object) -> Decoding | None:
    """Return the decoding of a model; None if the model has one input and does not decode.

    Args:
        graph: the model.
        source: its name in messages.

    Raises:
        DataError: the model has an unknown input or a fixed batch size above 1, layers with weights
            behind the decoding, control flow in the decoding, or a decoding that does not read the
            network.
    """
    decoders = [op for op in graph.ops if op.type in _DECODING]
    image = image_of(graph)
    others = [name for name in graph.inputs if name != image]
    if image is None or not (decoders or others):
        return None
    if unknown := [name for name in others if name not in SIZES]:
        raise DataError(
            f"{source}: unknown input {unknown[0]} of shape {list(graph.shapes[unknown[0]])}; "
            f"expected one image input, and {' and '.join(SIZES)} of exported detectors",
            "Export the model without this input.",
        )
    if (batch := graph.shapes[image][0]) not in _BATCHES:
        raise DataError(
            f"{source}: the batch size is fixed at {batch}, expected -1 (any) or 1",
            "Export the detector with -1 as batch size.",
        )
    ops = _behind(graph, image, others)
    _check_ops(graph, ops, source)
    ends = _ends(graph, image, ops)
    if not ends:
        raise DataError(
            f"{source}: the decoding reads no output of the network, only the sizes of images",
            _WITHOUT_NMS,
        )
    kinds = tuple(op.type for op in ops if op.type in _DECODING)
    return Decoding(image, ends, ops, kinds)


def image_of(graph: ModelGraph) -> str | None:
    """Return the name of the only input [N, C, H, W]; None without exactly one."""
    images = [n for n in graph.inputs if len(graph.shapes.get(n, ())) == _IMAGE_DIMENSIONS]
    return images[0] if len(images) == 1 else None


def _behind(graph: ModelGraph, image: str, sizes: Sequence[str]) -> tuple[GraphOp, ...]:
    """Return the ops that decode, that depend on decoded values or sizes, and what they need."""
    of_values, decoded = {image}, set(sizes)
    behind: dict[int, GraphOp] = {}
    for op in graph.ops:
        if op.type in _DECODING or not decoded.isdisjoint(op.reads):
            behind[op.index] = op
            decoded |= set(op.writes)
        elif op.type not in _OF_SHAPE and not of_values.isdisjoint(op.reads):
            of_values |= set(op.writes)
    waiting = [name for op in behind.values() for name in op.reads]
    while waiting:
        # Constants, anchors and shapes: what the image does not change is computed again.
        op = graph.producers.get(waiting.pop())
        if op is not None and op.index not in behind and of_values.isdisjoint(op.writes):
            behind[op.index] = op
            waiting += op.reads
    return tuple(behind[index] for index in sorted(behind))


def _ends(graph: ModelGraph, image: str, ops: Sequence[GraphOp]) -> tuple[str, ...]:
    written = {name for op in ops for name in op.writes}
    known = {*written, *graph.weights, *graph.inputs, image}
    read = [name for op in ops for name in op.reads if name not in known]
    ends = list(dict.fromkeys([*read, *(name for name in graph.outputs if name not in written)]))
    strides = {
        op.inputs["X"][0]: int(op.attributes["downsample_ratio"])
        for op in ops
        if op.type == YOLO_BOX
    }
    if set(ends) == strides.keys():
        ends.sort(key=lambda name: -strides[name])
    return tuple(ends)


def _check_ops(graph: ModelGraph, ops: Sequence[GraphOp], source: object) -> None:
    for op in ops:
        if op.type in _LAYERS and not graph.weights.isdisjoint(op.reads):
            raise DataError(
                f"{source}: behind the decoding, the op {op.type} {op.writes[0]} has the weight "
                f"{next(name for name in op.reads if name in graph.weights)}; detectors with two "
                "stages are not supported",
                "Give a detector whose layers are all in front of decoding and NMS.",
            )
        if op.type in _BLOCKS:
            raise DataError(
                f"{source}: the decoding contains control flow (op {op.type}), which is not "
                "supported",
                _WITHOUT_NMS,
            )


def check_heads(decoding: Decoding, heads: Sequence["Head"], classes: int, source: object) -> None:
    """Check that a model decodes the heads that the manifest describes.

    Args:
        decoding: the decoding of the model.
        heads: the heads of the manifest, the coarsest first.
        classes: number of classes of the manifest.
        source: the model's name in messages.

    Raises:
        DataError: the model has other heads, or its boxes are decoded in another way.
    """
    decoders = decoding.yolo_boxes
    if decoding.kinds and not decoders:
        raise DataError(
            f"{source}: the model decodes boxes with other ops than {YOLO_BOX} (found "
            f"{', '.join(dict.fromkeys(decoding.kinds))}), but task detection trains and scores "
            "YOLOv3 heads only",
            _AS_OUTPUTS,
        )
    if not decoders:
        return
    if set(decoding.ends) != {op.inputs["X"][0] for op in decoders}:
        raise DataError(
            f"{source}: besides its heads, the model has the outputs "
            f"{', '.join(sorted(set(decoding.ends) - {op.inputs['X'][0] for op in decoders}))}",
            "Export the detector with boxes as its only result.",
        )
    for op in decoders:
        _check_yolo_box(op, classes, source)
    given = sorted(
        (int(op.attributes["downsample_ratio"]), tuple(op.attributes["anchors"])) for op in decoders
    )
    expected = sorted(
        (head.stride, tuple(round(side) for anchor in head.anchors for side in anchor))
        for head in heads
    )
    if given != expected:
        raise DataError(
            f"{source}: the model decodes heads of stride and anchors {_text(given)}, expected "
            f"{_text(expected)}",
            "Set /detection/anchors to the model's anchors: a list of [width, height] for each "
            "stride, the smallest stride first.",
        )


def _check_yolo_box(op: GraphOp, classes: int, source: object) -> None:
    scale, aware = op.attributes.get("scale_x_y", 1.0), bool(op.attributes.get("iou_aware"))
    if aware or round(scale, 6) != 1:
        raise DataError(
            f"{source}: {YOLO_BOX} has scale_x_y {scale:g} and iou_aware {aware}; task detection "
            "expects 1 and False, as in YOLOv3",
            _AS_OUTPUTS,
        )
    if (found := int(op.attributes["class_num"])) != classes:
        raise DataError(
            f"{source}: {YOLO_BOX} decodes {found} classes, but /model/classes is {classes}",
            f"Set /model/classes to {found}.",
        )


def _text(heads: Sequence[tuple[int, tuple[int, ...]]]) -> str:
    return "; ".join(f"{stride}: {list(sides)}" for stride, sides in heads)


def boxes_of(graph: ModelGraph) -> tuple[str | None, str | None]:
    """Return the outputs with boxes [M, 6] and with the number of boxes of each image [N].

    Returns:
        None for an output that the model does not have.
    """
    slots = {"Out": "boxes", "NmsRoisNum": "counts", "RoisNum": "counts"}
    found: dict[str, str] = {}
    for output in graph.outputs:
        name, op = output, graph.producers.get(output)
        while op is not None and op.type in _COPIES:
            name = op.inputs["X"][0]
            op = graph.producers.get(name)
        if op is not None and op.type in NMS:
            slot = next(key for key, names in op.outputs.items() if name in names)
            found.setdefault(slots.get(slot, slot), output)
    return found.get("boxes"), found.get("counts")


def sizes_of(images: Floats, ratios: Floats | None = None) -> dict[str, Floats]:
    """Return the inputs that describe the sizes of images.

    Args:
        images: float32 [N, C, H, W], the input of the network.
        ratios: float32 [N, 2], the height and width of the input over those of the image file; None
            if boxes are in pixels of the input.
    """
    count, _, height, width = images.shape
    shape = np.tile(np.array([height, width], np.float32), (count, 1))
    return {IM_SHAPE: shape, SCALE_FACTOR: np.ones_like(shape) if ratios is None else ratios}
