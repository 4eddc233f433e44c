"""accuracy: the saved models, loaded again, on the test split."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job import stats
from job.data.packed import open_packed
from job.engines import PACKAGES
from job.events import Events
from job.host import usable_cores
from job.manifest import Manifest
from job.stages.inputs import TEST
from job.stages.stage import Record, Stage, StageOutput

BATCH = 50
# Model of the report -> stage that left it, and how it runs.
MODELS = {
    "fp32": ("baseline", "onednn"),
    "qat_fake": ("convert", "fake_quantized"),
    "int8": ("int8", "int8"),
}
Correct = NDArray[np.bool_]


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write predictions.npz: each model's first choice and the label, per image."""
    if manifest.data.format == "synthetic":
        events.message("not measured: the images are synthetic")
        return {"skipped": "synthetic images have no accuracy"}
    test = open_packed(inputs["prepare"].path / TEST, manifest.model.input_shape)
    engines = [name for name in PACKAGES if name in inputs]
    scores: dict[str, NDArray[np.float32]] = {}
    for name in (*MODELS, *engines):
        scores[name] = score(name, open_saved(name, inputs), test.images, events)
        if events.stopping:
            return {}
    choices = {name: values.argmax(1).astype(np.int64) for name, values in scores.items()}
    np.savez(out / "predictions.npz", labels=test.labels, **choices)
    top1 = {name: stats.topk_correct(values, test.labels, 1) for name, values in scores.items()}
    top5 = {name: stats.topk_correct(values, test.labels, 5) for name, values in scores.items()}
    return {
        "images": len(test.labels),
        **{name: describe(top1[name], top5[name]) for name in MODELS},
        "engines": {name: describe(top1[name], top5[name]) for name in engines},
        "paired": paired(top1["fp32"], top1["int8"]),
    }


def open_saved(name: str, inputs: Mapping[str, StageOutput]) -> Any:
    """A saved model, loaded into its engine; each engine on all cores."""
    if name == "openvino":
        from job.engine import openvino

        return openvino.open_model(inputs[name].path, usable_cores())
    if name == "onnxruntime":
        from job.engine import onnxruntime

        return onnxruntime.open_model(inputs[name].path, usable_cores())
    from job.engine.predictor import Predictor, configuration

    stage, mode = MODELS[name]
    return Predictor(configuration(inputs[stage].path / "model", mode, threads=usable_cores()))


def score(
    name: str, model: Any, images: NDArray[np.float32], events: Events
) -> NDArray[np.float32]:
    """A saved model's scores, float32 [N, classes]."""
    from job.engine.predictor import score_all

    parts = []
    for done, part in score_all(model, images, BATCH):
        parts.append(part)
        events.progress(name, done, len(images), "images")
        if events.stopping:
            break
    return np.concatenate(parts)


def describe(top1: Correct, top5: Correct) -> dict[str, Any]:
    """One model's row of table I, in percent."""
    first, five = stats.accuracy(top1), stats.accuracy(top5)
    return {
        "top1": first.percent,
        "top5": five.percent,
        "top1_interval": list(first.interval),
        "top5_interval": list(five.interval),
    }


def paired(fp32: Correct, int8: Correct) -> dict[str, Any]:
    """FP32 against INT8, image by image."""
    comparison = asdict(stats.compare_paired(fp32, int8))
    comparison["top1_drop_interval"] = list(comparison["top1_drop_interval"])
    return comparison


NEEDS = ("prepare", "baseline", "convert", "int8")
STAGE = Stage("accuracy", "accuracy", NEEDS, lambda _: {}, lambda _: (), run, host_matters=True)
