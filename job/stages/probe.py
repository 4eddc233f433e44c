"""probe: measures decoding, inference and training for about a second each, for ``--dry-run``.

It is not a stage of a run: it reads no earlier result and writes nothing.
"""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.data.loader import Loader
from job.events import Events
from job.manifest import Manifest
from job.stages.dataset import evaluation_transform, normalisation, open_splits
from job.stages.network import network, recipe
from job.stages.stage import Record, Stage, StageOutput

_SECONDS = 1.0
_DECODED_BATCH = 4
# Formats whose images are not files that must be decoded.
NOT_DECODED = ("digits", "packed", "synthetic")


def run(
    manifest: Manifest,
    inputs: Mapping[str, StageOutput],  # noqa: ARG001
    out: Path,
    events: Events,  # noqa: ARG001
) -> Record:
    """Return ``forward``, ``train`` and ``decode`` in seconds per image, and ``layers``.

    ``train`` is None if no stage trains, and for detectors. ``decode`` is the time of one process.
    It is None if the images are not files.
    """
    from job.engine.training import probe
    from job.engine.training.session import open_session

    files = manifest.data.format not in NOT_DECODED
    decode = seconds_per_decoded_image(manifest, out) if files else None
    train = manifest.train if manifest.trains_quantized else manifest.baseline.train
    session = open_session(**network(manifest, train))
    found: dict[str, Any] = probe.measure(
        session,
        recipe(train) if train.has_steps else None,
        batch_size=train.batch_size,
        seconds=_SECONDS,
    )
    return found | {"decode": decode}


def seconds_per_decoded_image(manifest: Manifest, out: Path) -> float:
    """Decode and transform images of the test split for a second."""
    part = open_splits(manifest, out).test
    loader = Loader(
        part.source,
        part.indices,
        evaluation_transform(manifest, part.source),
        normalisation(manifest.data),
        batch_size=_DECODED_BATCH,
        workers=0,
        max_bad_fraction=1.0,
    )
    done, started = 0, time.perf_counter()
    with contextlib.closing(loader):
        for batch in loader.batches():
            done += len(batch.labels)
            if time.perf_counter() - started > _SECONDS:
                break
    return (time.perf_counter() - started) / max(1, done)


def settings(manifest: Manifest) -> Mapping[str, Any]:  # noqa: ARG001
    """Return no settings, because the result is never cached."""
    return {}


STAGE = Stage("probe", "probe", (), settings, lambda _: (), run)
