"""qat: trains the baseline with fake quantization."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.data.sources import BadImage
from job.distributed.group import meeting_of
from job.events import Events
from job.manifest import Manifest
from job.manifest.custom_code import callable_files
from job.stages.dataset import data_files, training_loader, training_part
from job.stages.network import network, quantize_settings, recipe
from job.stages.settings import settings_of, training_settings
from job.stages.stage import SELECTION, Record, Stage, StageOutput


def run(
    manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events
) -> Record | None:
    """Write best.npz and metrics.jsonl if the stage trains, otherwise only a marker."""
    if not manifest.trains_quantized:
        reason = {"strategy": manifest.quantize.strategy, "steps": 0}
        (out / "skipped.json").write_text(json.dumps(reason))
        return {"training": None, "seed": manifest.train.seed, "bad_images": []}
    from job.engine.quantize import qat
    from job.engine.training.session import open_session

    train, spec = manifest.train, manifest.quantize
    data = inputs["prepare"].path
    session = open_session(**network(manifest, train))
    weights = inputs["baseline"].path / "weights.npz"
    bad: list[BadImage] = []
    part = training_part(manifest, out)
    meeting = meeting_of(os.environ)
    with training_loader(manifest, part, train, events, bad) as loader:
        training = qat.train(
            session,
            recipe(train),
            quantize_settings(manifest),
            weights=weights,
            pact=spec.pact,
            start=inputs["calibrate"].path / qat.START if spec.calibrate else None,
            freeze_bn_stats=train.freeze_bn_stats is not False,
            loss=train.used_loss,
            loader=loader,
            selection=data / SELECTION,
            out=out,
            events=events,
            meeting=None if meeting is None else meeting.place,
        )
    if events.stopping or not training:
        return None
    return {
        "training": training,
        "seed": train.seed,
        "bad_images": [{"path": image.path, "reason": image.reason} for image in bad],
    }


def follower_stage(
    manifest: Manifest,
    inputs: Mapping[str, StageOutput],  # noqa: ARG001
    out: Path,
    events: Events,
) -> Record | None:
    """Train on a share of each batch, together with rank 0, which runs :func:`run`."""
    from job.engine.training import follower

    meeting = meeting_of(os.environ)
    if meeting is None:
        raise AssertionError("follower_stage needs a process group")
    part = training_part(manifest, out)
    with training_loader(manifest, part, manifest.train, events, []) as loader:
        trained = follower.follow(
            meeting.place, recipe(manifest.train), loader=loader, events=events
        )
    return {} if trained else None


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change the trained weights."""
    if not manifest.trains_quantized:
        return {"quantize": {"strategy": manifest.quantize.strategy}, "train": {"max_iters": 0}}
    return {
        # The user's code can set learning rates of parameters, which the baseline's output lacks.
        "model": {"callable": manifest.model.callable},
        "quantize": settings_of(manifest.quantize, "fallback"),
        "train": settings_of(manifest.train),
        "data": settings_of(manifest.data, "root"),
        **training_settings(manifest),
    }


def files(manifest: Manifest) -> tuple[Path, ...]:
    """Return the files of the user's code, and of training images if the stage trains."""
    return (*callable_files(manifest), *data_files(manifest)) if manifest.trains_quantized else ()


BESIDE = Stage("qat", "qat", (), settings, files, follower_stage)
NEEDS = ("prepare", "baseline", "calibrate")
STAGE = Stage("qat", "qat", NEEDS, settings, files, run, follower_stage=BESIDE)
