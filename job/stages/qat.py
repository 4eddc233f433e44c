"""qat: quantization-aware training of the baseline."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.data.sources import BadImage
from job.events import Events
from job.manifest import Manifest
from job.stages.inputs import (
    CALIBRATION,
    SELECTION,
    data_files,
    network,
    open_splits,
    quantize_settings,
    recipe,
    settings_of,
    training_loader,
)
from job.stages.stage import Record, Stage, StageOutput

POST = "post"


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write best.npz and metrics.jsonl; nothing to do for post-training quantization."""
    if manifest.quantize.strategy == POST:
        (out / "skipped.json").write_text(json.dumps({"strategy": POST}))
        return {"training": None, "seed": manifest.train.seed, "bad_images": []}
    from job.engine import qat
    from job.engine.session import open_session

    train, spec = manifest.train, manifest.quantize
    data = inputs["prepare"].path
    bad: list[BadImage] = []
    session = open_session(**network(manifest, train))
    part = open_splits(manifest, out).train
    with training_loader(manifest, part, train, events, bad) as loader:
        training = qat.train(
            session,
            recipe(train),
            quantize_settings(manifest),
            weights=inputs["baseline"].path / "weights.npz",
            pact=spec.pact,
            calibration=data / CALIBRATION if spec.calibrate else None,
            freeze_bn_stats=train.freeze_bn_stats,
            loader=loader,
            selection=data / SELECTION,
            out=out,
            events=events,
        )
    if events.stopping:
        return {}
    return {
        "training": training,
        "seed": train.seed,
        "bad_images": [{"path": image.path, "reason": image.reason} for image in bad],
    }


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """What decides the quantized weights."""
    if manifest.quantize.strategy == POST:
        return {"quantize": {"strategy": POST}}
    return {
        "quantize": settings_of(manifest.quantize, "post_algo"),
        "train": settings_of(manifest.train),
        "data": settings_of(manifest.data, "root"),
    }


def files(manifest: Manifest) -> tuple[Path, ...]:
    """The training images."""
    return () if manifest.quantize.strategy == POST else tuple(data_files(manifest))


STAGE = Stage("qat", "qat", ("prepare", "baseline"), settings, files, run)
