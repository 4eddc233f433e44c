"""The loss of YOLOv3."""

from collections.abc import Sequence

import paddle
from paddle import static

from job.detection.decode import Head

# Inputs of the loss: boxes float32 [N, M, 4] and classes int32 [N, M], see job.detection.targets.
BOXES, CLASSES = "boxes", "classes"


def append_yolo_loss(
    outputs: Sequence[static.Variable],
    heads: Sequence[Head],
    *,
    classes: int,
    ignore_threshold: float = 0.7,
    label_smoothing: bool = False,
) -> static.Variable:
    """Append the loss of YOLOv3 to the current program.

    The loss is the sum of the losses of all heads, averaged over images. An object belongs to the
    head that has its best anchor.

    Args:
        outputs: [N, anchors * (5 + classes), H, W] of each head.
        heads: the heads in the same order.
        classes: number of classes.
        ignore_threshold: a box without an object is no mistake if its IoU with an object is higher.
        label_smoothing: lower the target of the true class, and raise the other targets.
    """
    boxes = static.data(BOXES, [None, None, 4], "float32")
    labels = static.data(CLASSES, [None, None], "int32")
    anchors = [anchor for head in heads for anchor in head.anchors]
    losses, first = [], 0
    for output, head in zip(outputs, heads, strict=True):
        mask = list(range(first, first + len(head.anchors)))
        first += len(head.anchors)
        losses.append(
            paddle.vision.ops.yolo_loss(
                output,
                boxes,
                labels,
                anchors=[round(side) for anchor in anchors for side in anchor],
                anchor_mask=mask,
                class_num=classes,
                ignore_thresh=ignore_threshold,
                downsample_ratio=head.stride,
                use_label_smooth=label_smoothing,
            )
        )
    return paddle.mean(paddle.add_n(losses))
