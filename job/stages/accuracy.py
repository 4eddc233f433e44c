"""accuracy: loads the saved models and scores the test split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.packed import Packed, open_packed
from job.data.packed_objects import targets_of
from job.events import Events
from job.host import usable_cores
from job.manifest import Manifest
from job.stages.engine_packages import built
from job.stages.settings import settings_of
from job.stages.stage import SHARD, TEST, Record, Stage, StageOutput
from job.stages.task import task_of
from job.storage.files import write_bytes
from job.tasks.task import Outputs, Results, Targets, Task

BATCH = 50
# Model name in the report -> stage that writes the model, and mode of the predictor.
MODELS = {
    "fp32": ("baseline", "onednn"),
    "qat_fake": ("convert", "fake_quantized"),
    "int8": ("int8", "int8"),
}
# Arrays by "MODEL.NAME", such as "int8.top1"; see Task.results.
Part = Mapping[str, Any]
PART = "part.npz"
# The page of test images of a detector.
DETECTIONS = "detections.html"


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write predictions.npz, see ``Task.predictions``.

    Inputs named ``shard-0`` and so on contain the parts of the test split that other processes have
    scored. This process scores the other parts.
    """
    if manifest.data.format == "synthetic":
        events.message("accuracy is not measured, because the images are synthetic")
        return {"skipped": "accuracy is not measured, because the images are synthetic"}
    task = task_of(manifest)
    test, targets = open_test(manifest, inputs)
    names = (*MODELS, *built(inputs))
    parts = []
    for number, images in enumerate(shards(len(test.labels), manifest.accuracy.shards)):
        shard = inputs.get(f"{SHARD}-{number}")
        part = (
            read_part(shard.path)
            if shard
            else score_part(task, names, inputs, test.images, targets, images, events)
        )
        if events.stopping:
            return {}
        parts.append(part)
    whole: dict[str, Any] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    results = results_by_model(whole, names)
    predictions: dict[str, Any] = task.predictions(results, targets)
    np.savez(out / "predictions.npz", **predictions)
    if task.page is not None:
        known = inputs["prepare"].record["class_names"]
        text = task.page(
            test.images,
            results,
            targets,
            known or [str(label) for label in range(manifest.model.classes)],
            normalisation=(manifest.data.mean, manifest.data.std),
        )
        write_bytes(out / DETECTIONS, text.encode())
    return task.accuracy(results, targets)


def run_shard(
    manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events
) -> Record:
    """Write part.npz for one part of the test split; the input ``shard`` has its number."""
    number = inputs[SHARD].record["number"]
    test, targets = open_test(manifest, inputs)
    parts = shards(len(test.labels), manifest.accuracy.shards)
    if number >= len(parts):
        events.message(
            f"shard {number} has no images, because the test split is too small for more than "
            f"{len(parts)} shards"
        )
        return {"images": 0}
    images = parts[number]
    names = (*MODELS, *built(inputs))
    part = score_part(task_of(manifest), names, inputs, test.images, targets, images, events)
    if events.stopping:
        return {}
    np.savez(out / PART, **part)
    return {"images": len(images)}


def open_test(manifest: Manifest, inputs: Mapping[str, StageOutput]) -> tuple[Packed, Targets]:
    """Open the test split; return also its labels or objects."""
    path = inputs["prepare"].path / TEST
    test = open_packed(path, manifest.model.input_shape)
    return test, targets_of(path, test.labels)


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
    task: Task,
    names: Sequence[str],
    inputs: Mapping[str, StageOutput],
    images: NDArray[np.float32],
    targets: Targets,
    chosen: range,
    events: Events,
) -> Part:
    """Score some images with each model.

    Args:
        task: computes the results of a batch.
        names: names of the models, FP32 first.
        inputs: outputs of the earlier stages.
        images: images of the test split, float32 [N, C, H, W].
        targets: labels or objects of these images.
        chosen: indices of the images to score.
        events: receives progress.

    Returns:
        The results of the images by "MODEL.NAME"; incomplete after a stop request.
    """
    from job.engine.inference.predictor import score_all

    images = images[chosen.start : chosen.stop]
    targets = targets[chosen.start : chosen.stop]
    part: dict[str, Any] = {}
    reference: list[Outputs] = []
    for name in names:
        batches: list[Results] = []
        for done, outputs in score_all(open_saved(name, inputs), images, BATCH):
            if name == names[0]:
                reference.append(outputs)
            first = done - len(outputs[0])
            batches.append(task.results(outputs, targets[first:done], reference[len(batches)]))
            events.progress(name, done, len(images), "images")
            if events.stopping:
                return part
        part |= {f"{name}.{key}": np.concatenate([b[key] for b in batches]) for key in batches[0]}
    return part


def results_by_model(whole: Part, names: Sequence[str]) -> dict[str, Results]:
    """Return the results of each model from arrays by "MODEL.NAME"."""
    return {
        name: {
            key.removeprefix(f"{name}."): values
            for key, values in whole.items()
            if key.startswith(f"{name}.")
        }
        for name in names
    }


def read_part(folder: Path) -> Part:
    """Read the part.npz that :func:`run_shard` wrote."""
    with np.load(folder / PART) as saved:
        return dict(saved)


def open_saved(name: str, inputs: Mapping[str, StageOutput]) -> Any:
    """Load a saved model into its engine, which uses all cores."""
    if name == "openvino":
        from job.engine.openvino import convert as openvino

        return openvino.open_model(inputs[name].path, usable_cores())
    if name == "paddle_openvino":
        from job.engine.paddle_openvino import model as paddle_openvino

        return paddle_openvino.open_model(inputs[name].path, usable_cores())
    if name == "onnxruntime":
        from job.engine.onnxruntime import convert as onnxruntime

        return onnxruntime.open_model(inputs[name].path, usable_cores())
    from job.engine.inference.predictor import Predictor, configuration

    stage, mode = MODELS[name]
    return Predictor(configuration(inputs[stage].path / "model", mode, threads=usable_cores()))


NEEDS = ("prepare", "baseline", "convert", "int8")


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change detections."""
    return {"task": manifest.task, "detection": settings_of(manifest.detection, "augment")}


SHARD_STAGE = Stage(
    "score", "part", (*NEEDS, SHARD), settings, lambda _: (), run_shard, host_matters=True
)
STAGE = Stage(
    "accuracy",
    "accuracy",
    NEEDS,
    settings,
    lambda _: (),
    run,
    host_matters=True,
    shard=SHARD_STAGE,
)
