"""Adds decoding and NMS of an exported detector to the saved models of its network."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.packed import open_packed
from job.manifest import Manifest
from job.stages.network import inference_model_prefix
from job.stages.stage import CALIBRATION, StageOutput

MODEL = "model"
# Images on which the boxes of the whole detector are compared with the decoded heads.
DECODED_IMAGES = 4
HEAD = (
    "it computes an output of the detector: rounding of boxes and scores would reduce accuracy, "
    "and the heads take little time"
)
DECODING = "decoding and NMS of an exported detector stay in FP32"


def add_to_fp32(manifest: Manifest, prepared: Path, out: Path) -> dict[str, Any]:
    """Add decoding and NMS of an exported detector to the FP32 model.

    Args:
        manifest: names the exported model.
        prepared: folder of the prepared images.
        out: folder of the FP32 model.

    Returns:
        ``detector``, see ``job.engine.inference.whole_detector.check_whole``; empty if the model
        was not exported, or does not decode.
    """
    from job.engine.inference.predictor import ONEDNN
    from job.engine.inference.whole_detector import complete

    given = manifest.model.inference_model
    if not given:
        return {}
    prefix = inference_model_prefix(manifest.path(given))
    images = open_packed(prepared / CALIBRATION, manifest.model.input_shape).images
    done = complete(out / MODEL, prefix, np.array(images[:DECODED_IMAGES]), ONEDNN)
    return {"detector": done[0]} if done else {}


def add_to_int8(
    baseline: StageOutput, out: Path, images: NDArray[np.float32], record: dict[str, Any]
) -> None:
    """Add decoding and NMS of an exported detector to the INT8 model, in FP32.

    Args:
        baseline: the FP32 model, which contains both.
        out: folder of the INT8 model.
        images: float32 [N, C, H, W], to compare the boxes.
        record: the record of stage int8; receives the result.
    """
    from job.engine.inference.predictor import INT8
    from job.engine.inference.whole_detector import complete

    if "detector" not in baseline.record:
        return
    done = complete(out / MODEL, baseline.path / MODEL, images[:DECODED_IMAGES], INT8)
    if done is None:
        raise AssertionError(f"{baseline.path / MODEL} has no decoding")
    record["interfaces"]["fp32"]["detector"] = baseline.record["detector"]
    record["interfaces"]["int8"]["detector"], kinds = done
    record["types_in_fp32"] = [
        *record.get("types_in_fp32", ()),
        *({"type": kind, "count": count, "reason": DECODING} for kind, count in kinds.items()),
    ]


def explained_heads(
    left: Sequence[Mapping[str, str]], heads: Collection[str]
) -> list[Mapping[str, str]]:
    """Return the ops in FP32, with the reason for the heads of a detector.

    Args:
        left: the ops in FP32.
        heads: the outputs of the heads.
    """
    return [{**each, "reason": HEAD} if each["op"] in heads else each for each in left]
