"""The training loop of baseline and QAT: resumable, reproducible, keeping the best weights."""

import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.training.checkpoints import (
    BEST,
    Checkpoints,
    Evaluation,
    Progress,
    read_best,
    write_best,
)
from job.engine.training.collective import Plan, SingleProcess
from job.engine.training.malloc import keep_memory
from job.engine.training.metrics import Metrics
from job.engine.training.programs import (
    IMAGE,
    LABEL,
    batch_norm_statistics,
    persistables,
    read_variables,
    write_variables,
)
from job.errors import TrainingError
from job.events import Events
from job.stats import topk_correct

# Quicker in oneDNN than in Paddle's own kernels although they reorder what they read and write
# (tests/bench/training.py measures it). Batch norm, relu, sums and pooling are not, together: see
# docs/training.md.
CONVOLUTIONS = ("conv2d", "depthwise_conv2d")


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the step.

    Attributes:
        kind: piecewise, cosine or constant.
        base: learning rate after warm-up.
        milestones: shares of all steps after which a piecewise rate is multiplied by ``gamma``.
        warmup: share of all steps over which the rate grows linearly from 0.
    """

    kind: str
    base: float
    milestones: tuple[float, ...]
    gamma: float
    warmup: float

    def rate(self, step: int, total: int) -> float:
        """Learning rate of step ``step`` (from 0) of ``total``."""
        warmup_steps = round(self.warmup * total)
        if step < warmup_steps:
            return self.base * (step + 1) / warmup_steps
        if self.kind == "piecewise":
            passed = sum(step >= round(m * total) for m in self.milestones)
            return self.base * self.gamma**passed
        if self.kind == "cosine":
            done = (step - warmup_steps) / max(1, total - warmup_steps)
            return 0.5 * self.base * (1 + math.cos(math.pi * done))
        return self.base


@dataclass(frozen=True)
class TrainingBatch:
    """Images float32 [N, C, H, W] and labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


def add_optimizer(
    program: Program,
    startup: Program,
    loss: str,
    *,
    name: str,
    momentum: float,
    weight_decay: float,
) -> str:
    """Append backward pass and optimizer to ``program``; returns the learning rate's variable."""
    with static.program_guard(program, startup), paddle.utils.unique_name.guard("optimizer_"):
        common = {"learning_rate": 1.0, "weight_decay": weight_decay}
        optimizers = {
            "momentum": lambda: paddle.optimizer.Momentum(momentum=momentum, **common),
            "sgd": lambda: paddle.optimizer.SGD(**common),
            "adam": lambda: paddle.optimizer.Adam(**common),
            "adamw": lambda: paddle.optimizer.AdamW(**common),
        }
        optimizer = optimizers[name]()
        optimizer.minimize(program.global_block().var(loss))
        return optimizer._global_learning_rate(program).name


def with_onednn(program: Program) -> Program:
    """A copy of a training or evaluation program for running, with oneDNN's convolutions."""
    program = program.clone()
    for op in program.global_block().ops:
        if op.type.removesuffix("_grad") in CONVOLUTIONS:
            op._set_attr("use_mkldnn", True)
            # In test mode oneDNN keeps the weights of the first run, and training changes them.
            op._set_attr("is_test", False)
    return program


def evaluate(
    program: Program,
    logits: str,
    executor: static.Executor,
    batches: Iterator[TrainingBatch],
) -> tuple[float, float]:
    """Top-1 and top-5 of a program, in percent."""
    right1 = right5 = count = 0
    for batch in batches:
        (scores,) = executor.run(program, {IMAGE: batch.images}, [logits])
        right1 += int(topk_correct(scores, batch.labels, 1).sum())
        right5 += int(topk_correct(scores, batch.labels, 5).sum())
        count += len(batch.labels)
    return 100.0 * right1 / count, 100.0 * right5 / count


@dataclass(frozen=True)
class Trainer:
    """What the loop needs to run steps, evaluate and save.

    Attributes:
        program: training program with its optimizer.
        learning_rate: name of the learning rate's variable.
        evaluation: program that is evaluated and whose variables are kept when best.
        peers: the processes that train together.
        data: identifies the training images, to compare those of the processes.
    """

    program: Program
    loss: str
    learning_rate: str
    evaluation: Program
    logits: str
    scope: static.Scope
    executor: static.Executor
    peers: SingleProcess = field(default_factory=SingleProcess)
    data: str = ""

    def shared_plan(self, plan: "TrainingPlan", step: int) -> Plan:
        """What the processes agree on before step ``step``."""
        return Plan(
            step,
            plan.total_steps,
            plan.steps_per_epoch,
            self.data,
            self.loss,
            self.learning_rate,
        )

    def stepper(self, program: Program, seed: int) -> "Stepper":
        """What runs the steps of ``program``, which is made of the trainer's."""
        return Stepper(
            program, self.loss, self.learning_rate, self.scope, self.executor, self.peers, seed
        )


@dataclass(frozen=True)
class TrainingPlan:
    """Which steps a training takes, and what happens after them.

    Attributes:
        name: of the stage, for messages.
        total_steps: steps in all.
        steps_per_epoch: batches of an epoch.
        evaluate_at: steps after which the selection split is evaluated; holds ``total_steps``.
        schedule: the learning rate.
        seed: of what the program draws.
        checkpoint_seconds: time between two checkpoints.
    """

    name: str
    total_steps: int
    steps_per_epoch: int
    evaluate_at: Collection[int]
    schedule: Schedule
    seed: int
    checkpoint_seconds: float


def train(
    trainer: Trainer,
    plan: TrainingPlan,
    *,
    epoch_batches: Callable[[int, int], Iterator[TrainingBatch]],
    selection_batches: Callable[[], Iterator[TrainingBatch]],
    out: Path,
    events: Events,
) -> Progress:
    """Train, resuming from the newest checkpoint in ``out``; leaves ``best.npz`` there.

    Asked to stop, it saves its state and returns early.

    Args:
        epoch_batches: (epoch, first batch) -> the epoch's batches from there on.
        selection_batches: batches of the selection split.

    Raises:
        TrainingError: the loss is not finite; the last checkpoint and ``best.npz`` remain.
    """
    program = with_onednn(trainer.program)
    evaluation = with_onednn(trainer.evaluation)
    checkpoints = Checkpoints(out / "checkpoints")
    state = persistables(trainer.program)
    statistics = sorted(batch_norm_statistics(trainer.evaluation))
    progress = resume(trainer, checkpoints, out / BEST, plan.name, events)
    trainer.peers.lead(trainer.scope, program, trainer.shared_plan(plan, progress.step), state)
    stepper = trainer.stepper(program, plan.seed)
    metrics = Metrics(out / "metrics.jsonl", progress)
    saved = time.monotonic()
    for step, batch in remaining_batches(
        progress.step, plan.total_steps, plan.steps_per_epoch, epoch_batches
    ):
        rate = plan.schedule.rate(step, plan.total_steps)
        what = f"step {step + 1} (learning rate {rate:g})"
        started = time.monotonic()
        loss = stepper.run(batch, rate, step)
        if not math.isfinite(loss):
            raise diverged(plan.name, f"the loss is {loss} at {what}", checkpoints)
        speed = progress.advance(len(batch.labels), time.monotonic() - started)
        metrics.step(progress.step, loss, rate, speed)
        note = f"loss {loss:.3f}, {speed:.0f} images/s"
        events.progress(plan.name, progress.step, plan.total_steps, "steps", note)
        stopping = trainer.peers.agree(events.stopping)
        saving = stopping or time.monotonic() - saved > plan.checkpoint_seconds
        evaluating = progress.step in plan.evaluate_at
        # A relu turns NaN into 0, so that the loss alone does not tell.
        values = read_variables(trainer.scope, state if saving or evaluating else statistics)
        if not all(np.isfinite(value).all() for value in values.values()):
            raise diverged(plan.name, f"weights are not finite after {what}", checkpoints)
        if evaluating:
            top1 = evaluate_and_keep(
                trainer, evaluation, selection_batches(), progress, metrics, out
            )
            done = f"step {progress.step} of {plan.total_steps}"
            events.message(f"{plan.name}: {done}, top-1 {top1:.2f}%")
        if saving:
            metrics.sync()
            checkpoints.save(values, progress)
            saved = time.monotonic()
        if stopping:
            done = f"step {progress.step} of {plan.total_steps}"
            events.message(f"{plan.name}: state saved after {done}")
            break
    return progress


def diverged(name: str, what: str, checkpoints: Checkpoints) -> TrainingError:
    """The error of a training that cannot go on."""
    kept = (
        f"The last good checkpoint is kept in {checkpoints.folder}. "
        if any(checkpoints.folder.glob("step-*.npz"))
        else ""
    )
    return TrainingError(
        f"{name}: {what}", f"{kept}Lower base_lr or look at the data, then run again."
    )


def resume(
    trainer: Trainer, checkpoints: Checkpoints, best: Path, name: str, events: Events
) -> Progress:
    """Restore the newest checkpoint, if there is one."""
    found = checkpoints.newest(events)
    if found is None:
        return Progress()
    values, progress = found
    write_variables(trainer.scope, values)
    if progress.best is not None:
        # The file may be newer than the checkpoint, of steps that a kill took.
        _, progress.best = read_best(best)
    events.message(f"{name}: going on after step {progress.step}")
    return progress


def remaining_batches(
    done: int,
    total_steps: int,
    steps_per_epoch: int,
    epoch_batches: Callable[[int, int], Iterator[TrainingBatch]],
) -> Iterator[tuple[int, TrainingBatch]]:
    """Step number and batch of every step from ``done`` on."""
    step = done
    while step < total_steps:
        epoch, first = divmod(step, steps_per_epoch)
        for batch in epoch_batches(epoch, first):
            yield step, batch
            step += 1
            if step == total_steps:
                return


@dataclass(frozen=True)
class Stepper:
    """Runs the optimizer steps of one process of a training.

    Attributes:
        program: with its optimizer, as it runs.
        loss: name of the scalar to fetch.
        learning_rate: name of the learning rate's variable.
        peers: the processes that train together.
        seed: of what the program draws.
    """

    program: Program
    loss: str
    learning_rate: str
    scope: static.Scope
    executor: static.Executor
    peers: SingleProcess
    seed: int

    def __post_init__(self) -> None:
        # Of every process of a training: each step waits for the slowest.
        keep_memory()

    def run(self, batch: TrainingBatch, rate: float, step: int) -> float:
        """One step on this process's share of a batch; returns the loss of the whole batch."""
        self.peers.meet()
        write_variables(self.scope, {self.learning_rate: np.array([rate], "float32")})
        # Dropout draws from the global generator: seeded by step, a resumed run draws the same.
        paddle.seed(self.peers.seed(self.seed, step))
        labels = self.peers.share(batch.labels).reshape(-1, 1)
        feed = {IMAGE: self.peers.share(batch.images), LABEL: labels}
        with self.peers.guarded():
            (loss,) = self.executor.run(self.program, feed, [self.loss])
        return float(loss)


def evaluate_and_keep(
    trainer: Trainer,
    program: Program,
    batches: Iterator[TrainingBatch],
    progress: Progress,
    metrics: Metrics,
    out: Path,
) -> float:
    """Evaluate the selection split and keep the weights if they are the best so far.

    Returns:
        Top-1 in percent.
    """
    started = time.monotonic()
    top1, top5 = evaluate(program, trainer.logits, trainer.executor, batches)
    progress.seconds += time.monotonic() - started
    evaluation = Evaluation(progress.step, top1, top5)
    progress.evaluations.append(evaluation)
    metrics.evaluation(evaluation)
    if progress.best is None or top1 >= progress.best.top1:
        progress.best = evaluation
        names = persistables(trainer.evaluation)
        write_best(out / BEST, read_variables(trainer.scope, names), evaluation)
    return top1
