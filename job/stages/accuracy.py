"""accuracy: loads the saved models and scores the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job import stats
from job.data.packed import Packed, open_packed
from job.events import Events
from job.host import usable_cores
from job.manifest import Manifest
from job.stages.engine_packages import PACKAGES
from job.stages.stage import SHARD, TEST, Record, Stage, StageOutput
from job.stats import closeness

BATCH = 50
# Model name in the report -> stage that writes the model, and mode of the predictor.
MODELS = {
    "fp32": ("baseline", "onednn"),
    "qat_fake": ("convert", "fake_quantized"),
    "int8": ("int8", "int8"),
}
Correct = NDArray[np.bool_]
# Fields of ScoreDifferences.
DIFFERENCES = ("signal", "noise", "divergence", "same_top1")
# Arrays by "MODEL.choice", "MODEL.top1", "MODEL.top5" and the differences from FP32, such as
# "MODEL.noise": one value per image.
Part = Mapping[str, Any]
PART = "part.npz"


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write predictions.npz: each model's predicted class and the label, per image.

    Inputs named ``shard-0`` and so on contain the parts of the test split that other processes have
    scored. This process scores the other parts.
    """
    if manifest.data.format == "synthetic":
        events.message("accuracy is not measured, because the images are synthetic")
        return {"skipped": "accuracy is not measured, because the images are synthetic"}
    test = open_packed(inputs["prepare"].path / TEST, manifest.model.input_shape)
    engines = [name for name in PACKAGES if name in inputs]
    names = (*MODELS, *engines)
    parts = []
    for number, images in enumerate(shards(len(test.labels), manifest.accuracy.shards)):
        shard = inputs.get(f"{SHARD}-{number}")
        part = read_part(shard.path) if shard else score_part(names, inputs, test, images, events)
        if events.stopping:
            return {}
        parts.append(part)
    whole: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    choices = {name: whole[f"{name}.choice"] for name in names}
    np.savez(out / "predictions.npz", labels=test.labels, **choices)
    top1 = {name: whole[f"{name}.top1"] for name in names}
    top5 = {name: whole[f"{name}.top5"] for name in names}
    return {
        "images": len(test.labels),
        **{name: describe(top1[name], top5[name]) for name in MODELS},
        "engines": {name: describe(top1[name], top5[name]) for name in engines},
        "paired": paired(top1["fp32"], top1["int8"]),
        "paired_fake": drop(top1["fp32"], top1["qat_fake"]),
        "paired_int8_fake": drop(top1["qat_fake"], top1["int8"]),
        "per_class": per_class(test.labels, top1["fp32"], top1["int8"]),
        "closeness": {name: closeness_of(whole, name) for name in names if name != "fp32"},
    }


def run_shard(
    manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events
) -> Record:
    """Write part.npz for one part of the test split; the input ``shard`` has its number."""
    number = inputs[SHARD].record["number"]
    test = open_packed(inputs["prepare"].path / TEST, manifest.model.input_shape)
    parts = shards(len(test.labels), manifest.accuracy.shards)
    if number >= len(parts):
        events.message(
            f"part {number} has no images, because the test split has {len(parts)} parts"
        )
        return {"images": 0}
    images = parts[number]
    names = (*MODELS, *(name for name in PACKAGES if name in inputs))
    part = score_part(names, inputs, test, images, events)
    if events.stopping:
        return {}
    np.savez(out / PART, **part)
    return {"images": len(images)}


def shards(images: int, count: int) -> list[range]:
    """Divide a test split into parts of whole batches, so that batches do not depend on ``count``.

    Args:
        images: number of images.
        count: number of parts. A split with fewer batches has one part per batch.

    Returns:
        The image indices of each part.
    """
    batches = -(-images // BATCH)
    cuts = [BATCH * (batches * number // count) for number in range(count)]
    spans = zip(cuts, [*cuts[1:], images], strict=True)
    return [range(first, last) for first, last in spans if first < last]


def score_part(
    names: Sequence[str],
    inputs: Mapping[str, StageOutput],
    test: Packed,
    images: range,
    events: Events,
) -> Part:
    """Score some images with each model.

    Args:
        names: names of the models.
        inputs: outputs of the earlier stages.
        test: the test split.
        images: indices of the images.
        events: receives progress.

    Returns:
        Per image: predicted class, top-1 and top-5 correctness, and differences from the FP32
        scores; incomplete after a stop request.
    """
    labels = np.asarray(test.labels[images.start : images.stop])
    part: dict[str, Any] = {}
    reference = None
    for name in names:
        chosen = test.images[images.start : images.stop]
        scores = score(name, open_saved(name, inputs), chosen, events)
        if events.stopping:
            break
        part[f"{name}.choice"] = scores.argmax(1).astype(np.int64)
        part[f"{name}.top1"] = stats.topk_correct(scores, labels, 1)
        part[f"{name}.top5"] = stats.topk_correct(scores, labels, 5)
        # FP32 is the first model.
        reference = scores if reference is None else reference
        differences = closeness.score_differences(scores, reference)
        part |= {f"{name}.{field}": getattr(differences, field) for field in DIFFERENCES}
    return part


def read_part(folder: Path) -> Part:
    """Read the part.npz that :func:`run_shard` wrote."""
    with np.load(folder / PART) as saved:
        return dict(saved)


def open_saved(name: str, inputs: Mapping[str, StageOutput]) -> Any:
    """Load a saved model into its engine, which uses all cores."""
    if name == "openvino":
        from job.engine.openvino import convert as openvino

        return openvino.open_model(inputs[name].path, usable_cores())
    if name == "onnxruntime":
        from job.engine.onnxruntime import convert as onnxruntime

        return onnxruntime.open_model(inputs[name].path, usable_cores())
    from job.engine.inference.predictor import Predictor, configuration

    stage, mode = MODELS[name]
    return Predictor(configuration(inputs[stage].path / "model", mode, threads=usable_cores()))


def score(
    name: str, model: Any, images: NDArray[np.float32], events: Events
) -> NDArray[np.float32]:
    """Return a model's scores, float32 [N, classes]; fewer rows after a stop request."""
    from job.engine.inference.predictor import score_all

    parts = []
    for done, part in score_all(model, images, BATCH):
        parts.append(part)
        events.progress(name, done, len(images), "images")
        if events.stopping:
            break
    return np.concatenate(parts)


def describe(top1: Correct, top5: Correct) -> dict[str, Any]:
    """Return one model's row of table I, in percent."""
    first, five = stats.accuracy(top1), stats.accuracy(top5)
    return {
        "top1": first.percent,
        "top5": five.percent,
        "top1_interval": list(first.interval),
        "top5_interval": list(five.interval),
    }


def per_class(labels: NDArray[np.int64], fp32: Correct, int8: Correct) -> list[dict[str, int]]:
    """Return, for each class with test images, the number of images and of correct answers.

    Args:
        labels: int64 [N].
        fp32: whether FP32 was correct, by image.
        int8: whether INT8 was correct, by image.
    """
    labels = np.asarray(labels)
    counts = [np.bincount(labels, weights) for weights in (None, fp32, int8)]
    return [
        {"label": label, "images": int(total), "fp32": int(one), "int8": int(two)}
        for label, (total, one, two) in enumerate(zip(*counts, strict=True))
        if total
    ]


def closeness_of(whole: Part, name: str) -> dict[str, Any]:
    """Return how close the scores of a model are to those of FP32."""
    fields = {field: whole[f"{name}.{field}"] for field in DIFFERENCES}
    return asdict(closeness.closeness(closeness.ScoreDifferences(**fields)))


def drop(reference: Correct, model: Correct) -> dict[str, Any]:
    """Return the top-1 drop of a model against a reference, in points, with its interval."""
    compared = paired(reference, model)
    return {name: compared[name] for name in ("top1_drop", "top1_drop_interval")}


def paired(fp32: Correct, int8: Correct) -> dict[str, Any]:
    """Compare the top-1 correctness of FP32 and INT8 image by image."""
    comparison = asdict(stats.compare_paired(fp32, int8))
    comparison["top1_drop_interval"] = list(comparison["top1_drop_interval"])
    return comparison


NEEDS = ("prepare", "baseline", "convert", "int8")
SHARD_STAGE = Stage(
    "score", "part", (*NEEDS, SHARD), lambda _: {}, lambda _: (), run_shard, host_matters=True
)
STAGE = Stage(
    "accuracy",
    "accuracy",
    NEEDS,
    lambda _: {},
    lambda _: (),
    run,
    host_matters=True,
    shard=SHARD_STAGE,
)
