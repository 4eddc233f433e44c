"""Evaluates a program on the selection split, and chooses between candidates."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paddle import static
from paddle.static import Program

from job import stats
from job.engine.training.checkpoints import Evaluation
from job.engine.training.ready_names import IMAGE
from job.stats import closeness
from job.storage.files import atomic_write

# How candidates are compared: the attribute of Evaluation, and the sign that makes larger better.
CRITERIA = {"top1": 1, "cross_entropy": -1, "divergence": -1}


@dataclass(frozen=True)
class TrainingBatch:
    """Images float32 [N, C, H, W] and labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Scorer:
    """An inference program and the name of its [N, classes] output."""

    program: Program
    logits: str
    executor: static.Executor

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Return the scores of images, with the weights of the current scope."""
        return self.executor.run(self.program, {IMAGE: images}, [self.logits])[0]


def write_scores(scorer: Scorer, batches: Iterator[TrainingBatch], path: Path) -> None:
    """Write the scores of all images to an .npy file, float32 [N, classes]."""
    parts = [scorer.scores(batch.images) for batch in batches]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        np.save(file, np.concatenate(parts))


def evaluate(
    scorer: Scorer,
    batches: Iterator[TrainingBatch],
    step: int,
    reference: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate a program.

    Args:
        scorer: the program.
        batches: labelled images, at least one.
        step: number of training steps done.
        reference: FP32 scores of the same images, [N, classes]; None without.
    """
    right1 = right5 = count = 0
    entropy = divergence = signal = noise = 0.0
    for batch in batches:
        scores = scorer.scores(batch.images)
        right1 += int(stats.topk_correct(scores, batch.labels, 1).sum())
        right5 += int(stats.topk_correct(scores, batch.labels, 5).sum())
        entropy += float(closeness.cross_entropy(scores, batch.labels).sum())
        if reference is not None:
            expected = reference[count : count + len(scores)]
            difference = closeness.score_differences(scores, expected)
            divergence += float(difference.divergence.sum())
            signal += float(difference.signal.sum())
            noise += float(difference.noise.sum())
        count += len(batch.labels)
    percent = 100.0 / count
    if reference is None:
        return Evaluation(step, percent * right1, percent * right5, entropy / count)
    return Evaluation(
        step,
        percent * right1,
        percent * right5,
        entropy / count,
        divergence / count,
        closeness.decibels(signal, noise),
    )


def is_better(found: Evaluation, best: Evaluation | None, criterion: str) -> bool:
    """Return whether an evaluation is at least as good as the best one so far."""
    if best is None:
        return True
    sign = CRITERIA[criterion]
    return sign * getattr(found, criterion) >= sign * getattr(best, criterion)
