"""Leaving ops in FP32 until the INT8 model is accurate enough: the search's trials."""

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
from job.stages.fallback_search import FallbackResult, Score, Try, search
from job.stages.stage import SELECTION, Record, StageOutput
from job.storage.files import write_bytes

BATCH = 50
# Each has thousands of values in every layer that counts.
MEASURED_IMAGES = 8
TRIES = Path("checkpoints/tries.jsonl")
# Never published; a trial's model is of no use after its score.
TRIAL = Path("checkpoints/trial")


def fall_back(
    manifest: Manifest,
    spec: FallbackSpec,
    inputs: Mapping[str, StageOutput],
    images: NDArray[np.float32],
    out: Path,
    events: Events,
) -> FallbackResult | None:
    """Search the ops that have to stay in FP32; None when the job was asked to stop.

    Each try is a line of tries.jsonl, from which an interrupted search goes on.

    Args:
        manifest: of the run.
        spec: when to stop.
        inputs: what the stages before have left.
        images: float32 [N, C, H, W], to find out on which ops differ.
        out: the stage's folder.
        events: told of each try.
    """
    path = out / TRIES
    earlier = read_tries(path)
    if earlier:
        events.message(f"fallback: going on after try {len(earlier)}")

    def on_try(tries: Sequence[Try]) -> None:
        write_tries(path, tries)
        events.message(describe(tries))

    return search(
        Trials(manifest, inputs, images, out / TRIAL, events).score,
        max_top1_drop=spec.max_top1_drop,
        max_seconds=60 * spec.max_minutes,
        earlier=earlier,
        on_try=on_try,
    )


@dataclass
class Trials:
    """INT8 models with some ops in FP32, scored on the selection split by the deployed engine.

    Attributes:
        manifest: of the run.
        inputs: what the stages before have left.
        images: float32 [N, C, H, W], to find out on which ops differ.
        folder: each model's, one after the other.
        events: told of progress.
    """

    manifest: Manifest
    inputs: Mapping[str, StageOutput]
    images: NDArray[np.float32]
    folder: Path
    events: Events

    def score(self, ops: Sequence[str]) -> Score | None:
        """Build and score the model with ``ops`` in FP32; None when asked to stop."""
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
        fp32 = self.fp32_right
        right = self.right(self.folder, INT8, f"fallback, {len(ops)} ops in FP32")
        found = differences(fake, self.folder / int8.PREFIX, self.images[:MEASURED_IMAGES])
        shutil.rmtree(self.folder)
        if fp32 is None or right is None:
            return None
        drop = 100 * (fp32 - right) / len(self.selection.labels)
        return Score(drop, found[0].op if found else None)

    @cached_property
    def selection(self) -> Packed:
        """The selection split."""
        path = self.inputs["prepare"].path / SELECTION
        return open_packed(path, self.manifest.model.input_shape)

    @cached_property
    def fp32_right(self) -> int | None:
        """How many images the FP32 model gets right."""
        from job.engine.inference.predictor import ONEDNN

        return self.right(self.inputs["baseline"].path, ONEDNN, "fallback, FP32 model")

    def right(self, folder: Path, mode: str, what: str) -> int | None:
        """How many images a saved model gets right; None when asked to stop."""
        from job.engine.inference.predictor import Predictor, configuration, score_all
        from job.engine.int8.build import PREFIX

        images, labels = self.selection.images, self.selection.labels
        predictor = Predictor(configuration(folder / PREFIX, mode, threads=usable_cores()))
        right, before = 0, 0
        for done, scores in score_all(predictor, images, BATCH):
            right += int(stats.topk_correct(scores, labels[before:done], 1).sum())
            before = done
            self.events.progress(what, done, len(labels), "images")
            if self.events.stopping:
                return None
        return right


def describe(tries: Sequence[Try]) -> str:
    """The last try in words."""
    last = tries[-1]
    what = "all ops in INT8" if last.op is None else f"{last.op} in FP32 as well"
    return f"fallback: top-1 drop {last.top1_drop:.2f} points with {what}"


def read_tries(path: Path) -> list[Try]:
    """The tries of an interrupted search."""
    if not path.exists():
        return []
    return [Try(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def write_tries(path: Path, tries: Sequence[Try]) -> None:
    """Keep all tries so far, a line of JSON each; what stands there is always whole."""
    path.parent.mkdir(exist_ok=True)
    text = "".join(f"{json.dumps(asdict(one))}\n" for one in tries)
    write_bytes(path, text.encode())


def record_of(outcome: FallbackResult) -> Record:
    """The report's ``audit.fallback``."""
    return {
        "steps": [{"op": one.op, "top1_drop": one.top1_drop} for one in outcome.tries],
        "kept": outcome.kept,
        "stopped": outcome.stopped,
    }


def explained(
    left: Sequence[Mapping[str, str]], outcome: FallbackResult
) -> list[Mapping[str, Any]]:
    """What was left in FP32, with the search's reasons for the ops that it chose."""
    reasons = {
        after.op: f"fallback: the top-1 drop was {before.top1_drop:.2f} points with it in INT8 "
        f"and {after.top1_drop:.2f} without"
        for before, after in zip(outcome.tries, outcome.tries[1 : outcome.kept + 1], strict=False)
    }
    return [{**one, "reason": reasons.get(one["op"], one["reason"])} for one in left]
