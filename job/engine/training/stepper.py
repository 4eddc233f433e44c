"""Optimizer steps of one process of a training."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.training.collective import SingleProcess
from job.engine.training.evaluation import TrainingBatch
from job.engine.training.malloc import keep_memory
from job.engine.training.onednn_cache import free_op_by_op
from job.engine.training.programs import IMAGE, persistables, read_variables, write_variables


def remaining_batches(
    done: int,
    total_steps: int,
    steps_per_epoch: int,
    epoch_batches: Callable[[int, int], Iterator[TrainingBatch]],
) -> Iterator[tuple[int, TrainingBatch]]:
    """Yield step number and batch of every step, beginning with step ``done``."""
    step = done
    while step < total_steps:
        epoch, first = divmod(step, steps_per_epoch)
        for batch in epoch_batches(epoch, first):
            yield step, batch
            step += 1
            if step == total_steps:
                return


@dataclass
class Stepper:
    """Runs the optimizer steps of one process.

    Attributes:
        program: training program with its optimizer; this object changes it.
        loss: name of the scalar loss.
        learning_rate: name of the learning rate's variable.
        feeds: inputs of the loss, in the order of a batch's targets.
        scope: contains the program's variables.
        executor: runs the program.
        peers: the processes that train together.
        seed: random seed of the program's ops, such as dropout.
        prepared_for: height and width of the images of the last step; None before the first step.
    """

    program: Program
    loss: str
    learning_rate: str
    feeds: tuple[str, ...]
    scope: static.Scope
    executor: static.Executor
    peers: SingleProcess
    seed: int
    prepared_for: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        # Every process does this, because each step waits for the slowest process.
        keep_memory()
        # The size of a detector's training images can differ from batch to batch.
        self.program.global_block().var(IMAGE).desc.set_need_check_feed(False)
        if isinstance(self.executor.place, paddle.CPUPlace):
            free_op_by_op(self.program)

    def run(self, batch: TrainingBatch, rate: float, step: int) -> float:
        """Run one step on this process's share of a batch; return the loss of the whole batch."""
        self.peers.meet()
        write_variables(self.scope, {self.learning_rate: np.array([rate], "float32")})
        feed = {IMAGE: self.peers.share(batch.images)}
        block = self.program.global_block()
        for name, target in zip(self.feeds, batch.targets, strict=True):
            # Distillation reads no targets.
            if block.has_var(name):
                share = self.peers.share(target)
                feed[name] = share.reshape(-1, 1) if share.ndim == 1 else share
        with self.peers.guarded():
            if self.prepared_for != batch.images.shape[2:]:
                self._forget_other_sizes()
                self._rehearse(feed)
                self.prepared_for = batch.images.shape[2:]
            # Dropout uses the global generator. Seeding it per step makes a resumed run identical.
            paddle.seed(self.peers.seed(self.seed, step))
            (loss,) = self.executor.run(self.program, feed, [self.loss])
        return float(loss)

    def _forget_other_sizes(self) -> None:
        """Delete what oneDNN keeps for images of another size.

        oneDNN keeps the reordered input of each convolution for each shape. With ten sizes, it
        would need several times the memory of the largest size.
        """
        if self.prepared_for is not None:
            self.executor._executor_cache.clear()

    def _rehearse(self, feed: Mapping[str, np.ndarray]) -> None:
        """Run a step with one image, and restore all variables that it changed.

        Paddle prepares a program in its first run. In this run, it keeps the copies that it makes
        for ops with other layouts, so that a whole batch needs twice the memory of a later step.
        """
        names = written_variables(self.program)
        state = read_variables(self.scope, names)
        first = {name: values[:1] for name, values in feed.items()}
        self.executor.run(self.program, first, [self.loss])
        write_variables(self.scope, state)


def written_variables(program: Program) -> list[str]:
    """Return the persistable variables that the ops of a program write."""
    written = {name for op in program.global_block().ops for name in op.output_arg_names}
    return sorted(written & set(persistables(program)))
