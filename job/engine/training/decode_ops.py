"""Finds where the network of an exported detector ends and the decoding of its outputs begins."""

from collections.abc import Sequence

import paddle

from job.detection.decode import Head
from job.errors import DataError

_DECODE = "yolo_box"


def before_decoding(
    block: paddle.base.framework.Block, heads: Sequence[Head]
) -> tuple[str, ...] | None:
    """Return the variables that the model decodes, in the order of the heads.

    Args:
        block: the block of an exported model, which can end with decoding and NMS.
        heads: the heads that the manifest describes.

    Returns:
        None if the model does not decode, so that its outputs are the heads' outputs.

    Raises:
        DataError: the model has other heads.
    """
    found = {
        int(op.attr("downsample_ratio")): (op.input("X")[0], tuple(op.attr("anchors")))
        for op in block.ops
        if op.type == _DECODE
    }
    if not found:
        return None
    given = {stride: anchors for stride, (_, anchors) in found.items()}
    expected = {
        head.stride: tuple(round(side) for anchor in head.anchors for side in anchor)
        for head in heads
    }
    if given != expected:
        raise DataError(
            f"the model decodes heads of stride and anchors {_text(given)}, expected "
            f"{_text(expected)}",
            "Set /detection/anchors to the model's anchors: a list of [width, height] for each "
            "stride, the smallest stride first.",
        )
    return tuple(found[head.stride][0] for head in heads)


def _text(anchors: dict[int, tuple[int, ...]]) -> str:
    return "; ".join(f"{stride}: {list(sides)}" for stride, sides in sorted(anchors.items()))
