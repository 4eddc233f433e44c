"""Detection: one output per head, and the objects of each image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.detection import bootstrap, voc_metric
from job.detection.annotations import Annotations
from job.detection.boxes import Size
from job.detection.decode import Head, detections
from job.detection.precision_recall import Ranking
from job.detection.ragged import arrays_of_detections, detections_of
from job.stats import closeness
from job.tasks.task import MODELS, Outputs, Results

METRIC = "map"


def results(outputs: Outputs, reference: Outputs, heads: Sequence[Head], size: Size) -> Results:
    """Return the detections of a batch, and per image the differences of its outputs from FP32.

    Args:
        outputs: output of each head, float32 [N, anchors * (5 + classes), h, w].
        reference: the same of FP32.
        heads: the heads in the order of the outputs.
        size: height and width of the images, in pixels.
    """
    count = len(outputs[0])
    flat, expected = (
        np.concatenate([each.reshape(count, -1) for each in every], axis=1).astype(np.float64)
        for every in (outputs, reference)
    )
    return {
        **arrays_of_detections(detections(outputs, heads, [size] * count)),
        "signal": np.square(expected).sum(axis=1),
        "noise": np.square(flat - expected).sum(axis=1),
    }


def accuracy(
    found: Mapping[str, Results], objects: Sequence[Annotations], classes: int
) -> dict[str, Any]:
    """Return mAP of each model in percent, and the comparisons of the models in points.

    Args:
        found: model -> its results.
        objects: the objects of each image.
        classes: number of classes.

    Raises:
        ValueError: no image has an object, so mAP is not defined.
    """
    ranked = {
        name: voc_metric.rankings(objects, detections_of(each), classes)
        for name, each in found.items()
    }
    rows = {name: describe(each) for name, each in ranked.items()}
    return {
        "images": len(objects),
        **{name: rows[name] for name in MODELS},
        "engines": {name: row for name, row in rows.items() if name not in MODELS},
        "paired": drop(ranked["fp32"], ranked["int8"]),
        "paired_fake": drop(ranked["fp32"], ranked["qat_fake"]),
        "paired_int8_fake": drop(ranked["qat_fake"], ranked["int8"]),
        "closeness": {name: closeness_of(found[name]) for name in found if name != "fp32"},
    }


def describe(ranked: Sequence[Ranking]) -> dict[str, Any]:
    """Return one model's mAP (area and 11-point) and the average precisions, in percent."""
    by_area, by_points = voc_metric.score(ranked), voc_metric.score(ranked, "11-point")
    return {
        METRIC: by_area.mean_ap,
        "map_11_point": by_points.mean_ap,
        "class_ap": list(by_area.class_ap),
    }


def drop(reference: Sequence[Ranking], model: Sequence[Ranking]) -> dict[str, Any]:
    """Return the drop of a model's mAP against a reference, in points, with its interval.

    Raises:
        ValueError: no image has an object.
    """
    compared = bootstrap.compare(reference, model)
    if compared is None:
        raise ValueError("mAP is not defined, because no image has an object")
    interval = compared.drop_interval
    return {
        f"{METRIC}_drop": compared.drop,
        f"{METRIC}_drop_interval": None if interval is None else list(interval),
    }


def closeness_of(found: Results) -> dict[str, float]:
    """Return the signal-to-noise ratio of a model's outputs against FP32."""
    signal, noise = (float(found[name].sum()) for name in ("signal", "noise"))
    return {"signal_to_noise_db": closeness.decibels(signal, noise)}


def predictions(found: Mapping[str, Results]) -> dict[str, NDArray[Any]]:
    """Return the detections of each model: MODEL.counts, MODEL.boxes, and so on."""
    names = ("counts", "boxes", "scores", "classes")
    return {f"{model}.{name}": each[name] for model, each in found.items() for name in names}
