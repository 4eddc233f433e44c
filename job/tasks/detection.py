"""Detection: one output per head, and the objects of each image."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from job.detection import bootstrap, voc_metric
from job.detection.annotations import Annotations, Detections
from job.detection.boxes import Size
from job.detection.comparison_page import comparison_page
from job.detection.curves import curves
from job.detection.decode import Head, Selection, detections
from job.detection.precision_recall import Ranking
from job.detection.ragged import arrays_of_detections, detections_of
from job.errors import DataError
from job.stats import closeness
from job.tasks.outputs import agreement, closeness_of, powers
from job.tasks.task import BOXES, MODELS, Metric, Outputs, Results, Scored, Task, flat

METRIC = "map"
# Strides of the heads, from the finest to the coarsest.
STRIDES = (8, 16, 32)
# Below this mAP in percent, a loss of some points has no meaning.
_LEAST_MAP = 5.0


def results(
    outputs: Outputs,
    targets: Sequence[Annotations],  # noqa: ARG001
    reference: Outputs,
    *,
    heads: Sequence[Head],
    size: Size,
    settings: Selection,
) -> Results:
    """Return the detections of a batch, and per image the differences of its outputs from FP32.

    Args:
        outputs: output of each head, float32 [N, anchors * (5 + classes), h, w].
        targets: the objects of each image; not used.
        reference: the same outputs of FP32.
        heads: the heads in the order of the outputs.
        size: height and width of the images, in pixels.
        settings: thresholds and limits of detections.
    """
    found = detections(outputs, heads, [size] * len(outputs[0]), settings)
    signal, noise = powers(flat(outputs), flat(reference))
    return {**arrays_of_detections(found), "signal": signal, "noise": noise}


def accuracy(
    found: Mapping[str, Results], objects: Sequence[Annotations], classes: int
) -> dict[str, Any]:
    """Return mAP of each model in percent, and the comparisons in percentage points.

    Args:
        found: model -> its results.
        objects: the objects of each image.
        classes: number of classes.

    Raises:
        DataError: no image has an object, so mAP is not defined.
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
        "curves": {name: curves(ranked[name]) for name in ("fp32", "int8")},
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
    """Return the drop of mAP against a reference in percentage points, with its interval.

    Raises:
        DataError: no image has an object.
    """
    compared = bootstrap.compare(reference, model)
    if compared is None:
        raise no_objects()
    interval = compared.drop_interval
    return {
        f"{METRIC}_drop": compared.drop,
        f"{METRIC}_drop_interval": None if interval is None else list(interval),
    }


def no_objects() -> DataError:
    """Return the error of a split without objects."""
    return DataError(
        "mAP is not defined, because no image of the split has an object that counts",
        "Give a test and a selection split with objects that are not difficult.",
    )


def predictions(
    found: Mapping[str, Results],
    objects: Sequence[Annotations],  # noqa: ARG001
) -> dict[str, NDArray[Any]]:
    """Return MODEL.counts, MODEL.boxes, and so on, of each model; see job.detection.ragged."""
    names = ("counts", "boxes", "scores", "classes")
    return {f"{model}.{name}": each[name] for model, each in found.items() for name in names}


def page(
    images: NDArray[Any],
    found: Mapping[str, Results],
    objects: Sequence[Annotations],
    class_names: Sequence[str],
    **about: Any,
) -> str:
    """Return a page of test images with the boxes of FP32 and INT8, see ``comparison_page``."""
    fp32, int8 = (detections_of(found[name]) for name in ("fp32", "int8"))
    return comparison_page(images, objects, (fp32, int8), class_names, **about)


def not_judged(accuracy: Mapping[str, Any], classes: int) -> str:  # noqa: ARG001
    """Return why mAP cannot be compared if FP32 finds hardly any object; or empty."""
    found = accuracy["fp32"][METRIC]
    return "" if found >= _LEAST_MAP else f"FP32 mAP is {found:.2f}%, below {_LEAST_MAP:g}%."


def evaluate(
    batches: Iterable[Scored],
    *,
    heads: Sequence[Head],
    size: Size,
    classes: int,
    settings: Selection,
) -> dict[str, float | None]:
    """Return mAP in percent, and the signal-to-noise ratio in decibels; None without FP32.

    Args:
        batches: outputs and objects; at least one image.
        heads: the heads in the order of the outputs.
        size: height and width of the images, in pixels.
        classes: number of classes.
        settings: thresholds and limits of detections.

    Raises:
        DataError: no image has an object.
    """
    objects: list[Annotations] = []
    found: list[Detections] = []
    signal = noise = 0.0
    compared = False
    for batch in batches:
        found += detections(batch.outputs, heads, [size] * len(batch.outputs[0]), settings)
        objects += batch.targets
        if batch.reference is not None:
            both = powers(flat(batch.outputs), batch.reference)
            signal, noise = signal + float(both[0].sum()), noise + float(both[1].sum())
            compared = True
    quality = voc_metric.score(voc_metric.rankings(objects, found, classes)).mean_ap
    if quality is None:
        raise no_objects()
    return {
        METRIC: quality,
        "signal_to_noise_db": closeness.decibels(signal, noise) if compared else None,
    }


def detection_task(heads: Sequence[Head], *, size: Size, classes: int, settings: Selection) -> Task:
    """Return the task of a detector.

    Args:
        heads: the heads in the order of the outputs.
        size: height and width of the images, in pixels.
        classes: number of classes.
        settings: thresholds and limits of detections.
    """
    return Task(
        primary=Metric(METRIC, "mAP"),
        criteria={"labels": METRIC},
        results=partial(results, heads=heads, size=size, settings=settings),
        accuracy=partial(accuracy, classes=classes),
        predictions=predictions,
        not_judged=not_judged,
        page=page,
        evaluate=partial(evaluate, heads=heads, size=size, classes=classes, settings=settings),
        agreement=agreement,
        loss=BOXES,
        heads=tuple(heads),
    )
