"""Evaluates a program on the selection split, and chooses between candidates."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.training.checkpoints import Evaluation
from job.engine.training.onednn_cache import free_op_by_op
from job.engine.training.ready_names import IMAGE
from job.storage.files import atomic_write
from job.tasks.task import Outputs, Scored, Targets, Task, flat

# Values of an evaluation of which smaller ones are better.
ERRORS = ("cross_entropy", "divergence")


@dataclass(frozen=True)
class TrainingBatch:
    """Images and their targets.

    Attributes:
        images: float32 [N, C, H, W].
        targets: arrays of N rows for the inputs of the loss, see ``Objective.feeds``. Labels are
            int64 [N].
    """

    images: np.ndarray
    targets: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class EvaluationBatch:
    """Images float32 [N, C, H, W], and N labels or annotations."""

    images: np.ndarray
    targets: Targets


@dataclass
class Scorer:
    """An inference program, which this object changes, and the names of its outputs."""

    program: Program
    outputs: tuple[str, ...]
    executor: static.Executor
    rehearsed: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.executor.place, paddle.CPUPlace):
            free_op_by_op(self.program)

    def run(self, images: np.ndarray) -> Outputs:
        """Return the outputs for images float32 [N, C, H, W], with the current scope's weights."""
        if not self.rehearsed:
            # The first run needs more memory per image, see Stepper._rehearse.
            self._run(images[:1])
            self.rehearsed = True
        return self._run(images)

    def _run(self, images: np.ndarray) -> Outputs:
        return tuple(self.executor.run(self.program, {IMAGE: images}, list(self.outputs)))


def write_outputs(scorer: Scorer, batches: Iterator[EvaluationBatch], path: Path) -> None:
    """Write the outputs for all images to an .npy file, float32 [N, values per image]."""
    parts = [flat(scorer.run(batch.images)) for batch in batches]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        np.save(file, np.concatenate(parts))


def evaluate(
    scorer: Scorer,
    batches: Iterator[EvaluationBatch],
    step: int,
    task: Task,
    reference: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate a program.

    Args:
        scorer: the program.
        batches: images with their targets, at least one.
        step: number of training steps done.
        task: measures the outputs.
        reference: FP32 outputs for the same images, [N, values per image]; None without.
    """

    def scored() -> Iterator[Scored]:
        count = 0
        for batch in batches:
            outputs = scorer.run(batch.images)
            end = count + len(batch.images)
            expected = None if reference is None else reference[count:end]
            yield Scored(outputs, batch.targets, expected)
            count = end

    return Evaluation(step, dict(task.evaluate(scored())))


def is_better(found: Evaluation, best: Evaluation | None, criterion: str) -> bool:
    """Return whether an evaluation is at least as good as the best one so far.

    Of two equal values, the one with the higher signal-to-noise ratio against FP32 is better: the
    mAP of a detector can be 0 both before and after a training step that destroyed the model.
    """
    if best is None:
        return True
    sign = -1 if criterion in ERRORS else 1

    def rank(each: Evaluation) -> tuple[float, float]:
        decibels = each.values["signal_to_noise_db"]
        return sign * each[criterion], 0.0 if decibels is None else decibels

    return rank(found) >= rank(best)


def described(found: Evaluation, task: Task) -> str:
    """Describe an evaluation for a message."""
    text = f"{task.primary.name} {found[task.primary.key]:.2f}%"
    decibels = found.values["signal_to_noise_db"]
    return text if decibels is None else f"{text}, {decibels:.1f} dB against FP32"
