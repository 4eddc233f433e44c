"""Saves tiny detectors as exporters do: decoding and NMS inside or outside, in either format.

Run as a program, ``python tiny_detectors.py FOLDER KIND...``, with FLAGS_enable_pir_api set: Paddle
reads the flag while it is imported.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIDE, CLASSES = 64, 3
# Stride -> anchors of the head, as the manifest has them.
ANCHORS = {8: [[8, 10]], 16: [[20, 30], [30, 20]], 32: [[50, 60]]}
ORDER = ("im_shape", "image", "scale_factor")
# The saver rejects inputs that the model does not read.
_READ = {
    "heads": ("image",),
    "unused_sizes": ("image",),
    "anchor_free": ("image", "scale_factor"),
    "ssd": ("image",),
}
KINDS = ("nms", "two_outputs", "matrix", "decoded", "heads", "unused_sizes", "anchor_free", "ssd")


def export(
    prefix: Path, kind: str = "nms", *, order: Sequence[str] = ORDER, batch: int = -1
) -> dict[str, np.ndarray]:
    """Save a detector; return inputs and, by name, the values of its heads for two images.

    Args:
        prefix: path without suffix.
        kind: one of ``KINDS``. ``nms``: yolo_box and multiclass_nms3 with three outputs;
            ``decoded``: yolo_box without NMS; ``heads``: without yolo_box; ``unused_sizes``: the
            boxes do not depend on the sizes of images.
        order: order of the inputs. Inputs that the kind does not read are omitted.
        batch: batch size of the image.
    """
    import paddle  # noqa: TID251
    from paddle import static  # noqa: TID251

    paddle.enable_static()
    program, startup, scope = static.Program(), static.Program(), static.Scope()
    with (
        static.scope_guard(scope),
        static.program_guard(program, startup),
        paddle.utils.unique_name.guard(),
    ):
        paddle.seed(1)
        sizes = [-1, 3, SIDE, SIDE]
        inputs = {
            "im_shape": static.data("im_shape", [batch, 2], "float32"),
            "image": static.data("image", [batch, *sizes[1:]], "float32"),
            "scale_factor": static.data("scale_factor", [batch, 2], "float32"),
        }
        ends, outputs = _NETWORKS.get(kind, _yolo)(paddle, inputs, kind)
        executor = static.Executor(paddle.CPUPlace())
        executor.run(startup)
        fed = [name for name in order if name in _READ.get(kind, ORDER)]
        static.save_inference_model(
            str(prefix), [inputs[name] for name in fed], outputs, executor, program=program
        )
        given = feed(np.random.default_rng(0).standard_normal((2, *sizes[1:])).astype("float32"))
        # Images run one by one, because the batch size can be fixed.
        rows = [
            executor.run(program, {k: v[i : i + 1] for k, v in given.items()}, [e for e, _ in ends])
            for i in range(2)
        ]
    found = [np.concatenate(pair) for pair in zip(*rows, strict=True)]
    return given | {str(place): value for place, value in enumerate(found)}


def add_unused_input(prefix: Path, name: str) -> None:
    """Add an input [N, 2] that no op reads in front of all others, as older savers left it."""
    from job.engine.inference.paddle_format import VarType, insert_ops, make_op, read_program

    path = Path(f"{prefix}.pdmodel")
    program = read_program(path)
    for op in program.blocks[0].ops:
        for item in op.attrs:
            if op.type == "feed" and item.name == "col":
                item.i += 1
    insert_ops(program, [make_op("feed", {"X": "feed"}, {"Out": name}, {"col": 0})])
    variable = program.blocks[0].vars.add(name=name)
    variable.type.type = VarType.DENSE_TENSOR
    variable.type.dense_tensor.tensor.data_type = VarType.FP32
    variable.type.dense_tensor.tensor.dims.extend([-1, 2])
    path.write_bytes(program.SerializeToString())


def feed(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the inputs of a detector for images whose files have the input's size."""
    size = np.full((len(images), 2), SIDE, "float32")
    return {"image": images, "im_shape": size, "scale_factor": np.ones_like(size)}


def _features(paddle: Any, image: Any) -> list[Any]:
    """Return features of the strides 8, 16 and 32, [N, 16, ...]."""
    nn = paddle.nn
    found, value = [], image
    for stride in (2, 2, 2, 2, 2):
        layer = nn.Conv2D(value.shape[1], 16, 3, stride, 1)
        value = nn.functional.relu(layer(value))
        found.append(value)
    return found[2:]


def _head(paddle: Any, feature: Any, channels: int) -> Any:
    spread = paddle.ParamAttr(initializer=paddle.nn.initializer.Normal(0, 2.0))
    return paddle.nn.Conv2D(16, channels, 1, weight_attr=spread)(feature)


def _nms(paddle: Any, boxes: Any, scores: Any) -> list[Any]:
    """Append multiclass_nms3, for which Paddle has no function in the legacy format."""
    numbers = {
        "score_threshold": 0.01, "nms_top_k": 100, "keep_top_k": 20, "nms_threshold": 0.45,
        "normalized": True, "nms_eta": 1.0, "background_label": -1,
    }  # fmt: skip
    if paddle.framework.in_pir_mode():
        return list(paddle._C_ops.multiclass_nms3(boxes, scores, None, *numbers.values()))
    helper = paddle.base.layer_helper.LayerHelper("multiclass_nms3")
    made = [
        helper.create_variable_for_type_inference(dtype) for dtype in ("float32", "int32", "int32")
    ]
    slots = dict(zip(("Out", "Index", "NmsRoisNum"), made, strict=True))
    helper.append_op(
        type="multiclass_nms3",
        inputs={"BBoxes": boxes, "Scores": scores},
        attrs=numbers,
        outputs=slots,
    )
    return made


def _yolo(paddle: Any, inputs: dict[str, Any], kind: str) -> tuple[list[Any], list[Any]]:
    found = []
    for feature, (stride, anchors) in zip(
        _features(paddle, inputs["image"]), ANCHORS.items(), strict=True
    ):
        found.append((_head(paddle, feature, len(anchors) * (5 + CLASSES)), stride))
    # The coarsest head is first, as in PaddleDetection.
    found = found[::-1]
    if kind == "heads":
        return found, [head for head, _ in found]
    if kind == "unused_sizes":
        sizes = paddle.full([1, 2], SIDE, "int32").expand([paddle.shape(inputs["image"])[0], 2])
    else:
        sizes = paddle.cast(paddle.round(inputs["im_shape"] / inputs["scale_factor"]), "int32")
    decoded = [
        paddle.vision.ops.yolo_box(
            head, sizes, [side for anchor in ANCHORS[stride] for side in anchor], CLASSES, 0.005,
            stride,
        )
        for head, stride in found
    ]  # fmt: skip
    boxes = paddle.concat([each for each, _ in decoded], axis=1)
    scores = paddle.transpose(paddle.concat([each for _, each in decoded], axis=1), [0, 2, 1])
    if kind == "decoded":
        return found, [boxes, scores]
    if kind == "matrix":
        made = paddle.vision.ops.matrix_nms(
            boxes, scores, 0.01, 0.01, 100, 20, background_label=-1, return_index=True
        )
        return found, [made[0], made[1]]
    boxes, index, counts = _nms(paddle, boxes, scores)
    return found, [boxes, counts] if kind == "two_outputs" else [boxes, counts, index]


def _anchor_free(paddle: Any, inputs: dict[str, Any], kind: str) -> tuple[list[Any], list[Any]]:
    """As PP-YOLOE and PicoDet: distances to the centres of cells, without yolo_box."""
    boxes, scores = [], []
    for feature, stride in zip(_features(paddle, inputs["image"]), ANCHORS, strict=True):
        cells = SIDE // stride
        sides = _head(paddle, feature, 4).reshape([0, 4, cells**2]).transpose([0, 2, 1]).exp()
        places = (np.stack(np.meshgrid(*2 * [np.arange(cells)]), -1) + 0.5).reshape(-1, 2)
        centres = paddle.to_tensor(places.astype("float32"))
        first, second = paddle.split(sides, 2, axis=-1)
        boxes.append(paddle.concat([centres - first, centres + second], -1) * float(stride))
        logits = _head(paddle, feature, CLASSES).reshape([0, CLASSES, cells**2])
        scores.append(paddle.nn.functional.softmax(logits, axis=1))
    box, score = paddle.concat(boxes, 1), paddle.concat(scores, 2)
    height, width = paddle.split(inputs["scale_factor"], 2, axis=-1)
    ratios = paddle.concat([width, height, width, height], -1).reshape([-1, 1, 4])
    found, index, counts = _nms(paddle, box / ratios, score)
    return [(box, 0), (score, 0)], [found, counts, index]


def _ssd(paddle: Any, inputs: dict[str, Any], kind: str) -> tuple[list[Any], list[Any]]:
    """As SSD: prior boxes, box_coder and softmax."""
    ops = paddle.vision.ops
    features = _features(paddle, inputs["image"])[1:]
    priors, variances, offsets, logits = [], [], [], []
    for feature, least in zip(features, (12.0, 28.0), strict=True):
        prior, variance = ops.prior_box(feature, inputs["image"], [least], [2 * least])
        count = prior.shape[2]
        priors.append(prior.reshape([-1, 4]))
        variances.append(variance.reshape([-1, 4]))
        for channels, into in ((4, offsets), (CLASSES + 1, logits)):
            head = _head(paddle, feature, count * channels).transpose([0, 2, 3, 1])
            into.append(head.reshape([0, -1, channels]))
    boxes = ops.box_coder(
        paddle.concat(priors), paddle.concat(variances), paddle.concat(offsets, 1),
        code_type="decode_center_size", box_normalized=True,
    )  # fmt: skip
    scores = paddle.nn.functional.softmax(paddle.concat(logits, 1)).transpose([0, 2, 1])
    found, index, counts = _nms(paddle, boxes, scores)
    return [], [found, counts, index]


_NETWORKS = {"anchor_free": _anchor_free, "ssd": _ssd}


if __name__ == "__main__":
    for name in sys.argv[2:]:
        (Path(sys.argv[1]) / name).mkdir(parents=True)
        np.savez(
            Path(sys.argv[1]) / name / "values.npz",
            **export(Path(sys.argv[1]) / name / "model", name),
        )
