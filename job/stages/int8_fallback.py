"""Builds and scores INT8 models for the search for ops to keep in FP32."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job import stats
from job.data.packed import Packed, open_packed
from job.events import Events
from job.host import usable_cores
from job.manifest import Manifest
from job.manifest.spec import FallbackSpec
from job.stages.fallback_search import (
    SIGNAL_TO_NOISE,
    TOP1,
    FallbackResult,
    Score,
    Try,
    search,
)
from job.stages.stage import SELECTION, Record, StageOutput
from job.stages.task import task_of
from job.storage.files import write_bytes
from job.tasks.task import Outputs, Task

BATCH = 50
# Few images are enough, because each has thousands of values in every large layer.
MEASURED_IMAGES = 8
TRIES = Path("checkpoints/tries.jsonl")
# Not published, because a trial's model is not needed after its score.
TRIAL = Path("checkpoints/trial")


def fall_back(
    manifest: Manifest,
    spec: FallbackSpec,
    inputs: Mapping[str, StageOutput],
    images: NDArray[np.float32],
    out: Path,
    events: Events,
) -> FallbackResult | None:
    """Search for the ops to keep in FP32.

    Each try is a line of tries.jsonl, from which an interrupted search resumes.

    Args:
        manifest: the run's manifest.
        spec: limits of the search.
        inputs: outputs of the earlier stages.
        images: float32 [N, C, H, W], to measure the error of each op.
        out: the stage's folder.
        events: receives progress and messages.

    Returns:
        The result; None after a stop request.

    Raises:
        QuantizationError: the model with all ops in INT8 cannot be built.
    """
    path = out / TRIES
    earlier = read_tries(path)
    if earlier:
        events.message(f"fallback: resuming after try {len(earlier)}")

    def on_try(tries: Sequence[Try]) -> None:
        write_tries(path, tries)
        events.message(describe(tries))

    trials = Trials(manifest, inputs, images, out / TRIAL, events)
    measure = trials.measure(spec.max_top1_drop)
    if measure is None:
        return None
    return search(
        trials.score,
        measure=measure,
        max_top1_drop=spec.max_top1_drop,
        max_seconds=60 * spec.max_minutes,
        earlier=earlier,
        on_try=on_try,
    )


@dataclass
class Trials:
    """Builds INT8 models with some ops in FP32, and scores them on the selection split.

    Attributes:
        manifest: the run's manifest.
        inputs: outputs of the earlier stages.
        images: float32 [N, C, H, W], to measure the error of each op.
        folder: folder of the current model; removed after its score.
        events: receives progress.
    """

    manifest: Manifest
    inputs: Mapping[str, StageOutput]
    images: NDArray[np.float32]
    folder: Path
    events: Events

    def score(self, ops: Sequence[str]) -> Score | None:
        """Build and score the model with ``ops`` in FP32; return None after a stop request."""
        from job.engine.compare.differences import differences
        from job.engine.inference.predictor import INT8
        from job.engine.int8 import build as int8

        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        fake = self.inputs["convert"].path / int8.PREFIX
        int8.build(
            fake,
            self.folder,
            self.manifest.quantize.quantize_op_types,
            self.images,
            quantized_ops=self.manifest.int8.quantized_ops,
            skip_ops=(*self.manifest.int8.skip_ops, *ops),
        )
        fp32 = self.fp32_outputs
        outputs = self.outputs(self.folder, INT8, f"fallback, {len(ops)} ops in FP32")
        worst = differences(fake, self.folder / int8.PREFIX, self.images[:MEASURED_IMAGES])
        shutil.rmtree(self.folder)
        if fp32 is None or outputs is None:
            return None
        drop = None
        if right := self.task.right:
            labels = self.selection.labels
            drop = 100 * (right(fp32, labels) - right(outputs, labels)) / len(labels)
        ratio = self.task.agreement(outputs, fp32).signal_to_noise_db
        return Score(drop, ratio, worst[0].op if worst else None)

    def measure(self, max_top1_drop: float) -> str | None:
        """Return what the search must compare; None after a stop request."""
        fp32, right = self.fp32_outputs, self.task.right
        if fp32 is None:
            return None
        if right is None:
            return SIGNAL_TO_NOISE
        total = len(self.selection.labels)
        if not stats.too_few_images(right(fp32, self.selection.labels), total, max_top1_drop):
            return TOP1
        self.events.message(
            f"fallback: {total} images of the selection split are too few to measure a top-1 drop "
            f"of {max_top1_drop:g} percentage points; models are compared by signal-to-noise ratio"
        )
        return SIGNAL_TO_NOISE

    @property
    def task(self) -> Task:
        """The manifest's task."""
        return task_of(self.manifest)

    @cached_property
    def selection(self) -> Packed:
        """The selection split."""
        path = self.inputs["prepare"].path / SELECTION
        return open_packed(path, self.manifest.model.input_shape)

    @cached_property
    def fp32_outputs(self) -> Outputs | None:
        """Outputs of the FP32 model; None after a stop request."""
        from job.engine.inference.predictor import ONEDNN

        return self.outputs(self.inputs["baseline"].path, ONEDNN, "fallback, FP32 model")

    def outputs(self, folder: Path, mode: str, what: str) -> Outputs | None:
        """Return a saved model's outputs for the selection split.

        Args:
            folder: folder of the model.
            mode: mode of the predictor.
            what: name of the work, for the progress display.

        Returns:
            The outputs; None after a stop request.
        """
        from job.engine.inference.predictor import Predictor, configuration, score_all
        from job.engine.int8.build import PREFIX

        images = self.selection.images
        predictor = Predictor(configuration(folder / PREFIX, mode, threads=usable_cores()))
        parts = []
        for done, outputs in score_all(predictor, images, BATCH):
            parts.append(outputs)
            self.events.progress(what, done, len(images), "images")
            if self.events.stopping:
                return None
        return tuple(map(np.concatenate, zip(*parts, strict=True)))


def describe(tries: Sequence[Try]) -> str:
    """Return a message about the last try."""
    last = tries[-1]
    what = "all ops in INT8" if last.op is None else f"{last.op} in FP32, too"
    drop = "" if last.top1_drop is None else f"top-1 drop {last.top1_drop:.2f} percentage points, "
    return f"fallback: {drop}{last.signal_to_noise_db:.1f} dB against FP32, with {what}"


def read_tries(path: Path) -> list[Try]:
    """Read the tries of an interrupted search; empty without a file."""
    if not path.exists():
        return []
    return [Try(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def write_tries(path: Path, tries: Sequence[Try]) -> None:
    """Write all tries so far atomically, one JSON line each."""
    path.parent.mkdir(exist_ok=True)
    text = "".join(f"{json.dumps(asdict(one))}\n" for one in tries)
    write_bytes(path, text.encode())


def record_of(outcome: FallbackResult) -> Record:
    """Return the ``audit.fallback`` entry of the report."""
    names = ("op", "top1_drop", "signal_to_noise_db")
    return {
        "measure": outcome.measure,
        "steps": [{name: getattr(each, name) for name in names} for each in outcome.tries],
        "kept": outcome.kept,
        "stopped": outcome.stopped,
    }


def explained(
    left: Sequence[Mapping[str, str]], outcome: FallbackResult
) -> list[Mapping[str, Any]]:
    """Return the ops in FP32, with the search's reason for the ops that the search selected."""
    reasons = {
        after.op: f"fallback: {_effect(before, after, outcome.measure)}"
        for before, after in zip(outcome.tries, outcome.tries[1 : outcome.kept + 1], strict=False)
    }
    return [{**each, "reason": reasons.get(each["op"], each["reason"])} for each in left]


def _effect(before: Try, after: Try, measure: str) -> str:
    if measure == SIGNAL_TO_NOISE:
        return (
            f"the signal-to-noise ratio was {before.signal_to_noise_db:.1f} dB with this op in "
            f"INT8, and {after.signal_to_noise_db:.1f} dB with this op in FP32"
        )
    return (
        f"the top-1 drop was {before.top1_drop:.2f} percentage points with this op in "
        f"INT8, and {after.top1_drop:.2f} percentage points with this op in FP32"
    )
