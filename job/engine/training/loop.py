"""The training loop of baseline and QAT.

It resumes from checkpoints, is reproducible, and keeps the best weights.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.inference.failure import names_failed_op, reason_of
from job.engine.training.checkpoints import (
    BEST,
    Checkpoints,
    Progress,
    read_best,
    write_best,
)
from job.engine.training.collective import Plan, SingleProcess
from job.engine.training.evaluation import (
    EvaluationBatch,
    Scorer,
    TrainingBatch,
    described,
    evaluate,
    is_better,
)
from job.engine.training.metrics import Metrics
from job.engine.training.onednn_cache import CONVOLUTIONS
from job.engine.training.programs import (
    batch_norm_statistics,
    persistables,
    read_variables,
    write_variables,
)
from job.engine.training.schedule import Schedule
from job.engine.training.stepper import Stepper, remaining_batches
from job.engine.training.tracing import places_in
from job.errors import TrainingError
from job.events import Events
from job.tasks.task import Task

# Prefix of the variables of the FP32 network in a program that distils it.
TEACHER = "teacher@"


def add_optimizer(
    program: Program,
    startup: Program,
    loss: str,
    *,
    name: str,
    momentum: float,
    weight_decay: float,
) -> str:
    """Append the backward pass and an optimizer to ``program``.

    Args:
        program: the training program.
        startup: receives the initialization of the optimizer's state.
        loss: name of the loss variable.
        name: ``momentum``, ``sgd``, ``adam`` or ``adamw``.
        momentum: momentum of ``momentum``.
        weight_decay: L2 weight decay; decoupled for ``adamw``.

    Returns:
        The name of the learning rate's variable.
    """
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
    """Return a copy of a program whose convolutions run in oneDNN.

    Convolutions are faster in oneDNN than in Paddle's kernels, although oneDNN reorders their
    inputs and outputs (tests/bench/training.py measures it). Batch norm, relu, sums and pooling
    together are not: see docs/training.md. The teacher's convolutions run in Paddle's own kernels,
    so that a training has the same losses as with earlier versions.
    """
    program = program.clone()
    for op in program.global_block().ops:
        is_teacher = any(name.startswith(TEACHER) for name in op.output_arg_names)
        if op.type.removesuffix("_grad") in CONVOLUTIONS and not is_teacher:
            op._set_attr("use_mkldnn", True)
            # In test mode oneDNN caches the weights of the first run, but training changes them.
            op._set_attr("is_test", False)
    return program


@dataclass(frozen=True)
class Trainer:
    """Programs and state of a training.

    Attributes:
        program: training program with its optimizer.
        loss: name of the scalar loss of ``program``.
        learning_rate: name of the learning rate's variable.
        evaluation: inference program; its variables are saved when its accuracy is best.
        outputs: names of the outputs of ``evaluation``.
        feeds: inputs of the loss, in the order of a batch's targets.
        scope: contains the variables of both programs.
        executor: runs both programs.
        peers: the processes that train together.
        data: identifies the training images, so that the processes can compare theirs.
        task: evaluates the outputs.
        criterion: the value of ``Task.evaluate`` that weights are compared by.
        reference: FP32 outputs for the selection split, [N, values per image]. With them, the
            initial weights are a candidate, too.
    """

    program: Program
    loss: str
    learning_rate: str
    evaluation: Program
    outputs: tuple[str, ...]
    feeds: tuple[str, ...]
    scope: static.Scope
    executor: static.Executor
    task: Task
    criterion: str
    peers: SingleProcess = field(default_factory=SingleProcess)
    data: str = ""
    reference: np.ndarray | None = None

    def shared_plan(self, plan: "TrainingPlan", step: int) -> Plan:
        """Return the plan that all processes must share before step ``step``."""
        return Plan(
            step,
            plan.total_steps,
            plan.steps_per_epoch,
            self.data,
            self.loss,
            self.learning_rate,
            self.feeds,
        )

    def stepper(self, program: Program, seed: int) -> Stepper:
        """Return a stepper for ``program``, a copy of the trainer's program.

        Args:
            program: the program to run.
            seed: random seed of the program's ops.
        """
        return Stepper(
            program,
            self.loss,
            self.learning_rate,
            self.feeds,
            self.scope,
            self.executor,
            self.peers,
            seed,
        )


@dataclass(frozen=True)
class TrainingPlan:
    """The steps of a training, its evaluations and its checkpoints.

    Attributes:
        name: name of the stage, for messages.
        total_steps: number of steps of the whole training.
        steps_per_epoch: batches per epoch.
        evaluate_at: steps after which the selection split is evaluated, including ``total_steps``.
        schedule: the learning rate.
        seed: random seed of the program's ops, such as dropout.
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
    selection_batches: Callable[[], Iterator[EvaluationBatch]],
    out: Path,
    events: Events,
) -> Progress:
    """Train, and write the best weights to ``best.npz`` in ``out``.

    The training resumes from the newest checkpoint in ``out``. After a stop request it saves a
    checkpoint and returns early.

    Args:
        trainer: programs and state.
        plan: the steps.
        epoch_batches: (epoch, first batch) -> the epoch's batches, beginning with that batch.
        selection_batches: returns the batches of the selection split.
        out: folder for checkpoints, metrics and ``best.npz``.
        events: receives progress and messages.

    Raises:
        TrainingError: the loss or a weight is not finite; checkpoints and ``best.npz`` remain.
    """
    program = with_onednn(trainer.program)
    scorer = Scorer(with_onednn(trainer.evaluation), trainer.outputs, trainer.executor)
    checkpoints = Checkpoints(out / "checkpoints")
    shared = persistables(trainer.program)
    state = without_teacher(shared)
    statistics = sorted(batch_norm_statistics(trainer.evaluation))
    progress = resume(trainer, checkpoints, out / BEST, plan.name, events)
    trainer.peers.lead(trainer.scope, program, trainer.shared_plan(plan, progress.step), shared)
    stepper = trainer.stepper(program, plan.seed)
    metrics = Metrics(out / "metrics.jsonl", progress)
    evaluate_now = partial(
        evaluate_and_keep, trainer, scorer, selection_batches, progress, metrics, out, events
    )
    if progress.step == 0 and trainer.reference is not None:
        evaluate_now(f"{plan.name}: before training")
    saved = time.monotonic()
    lengths = plan.total_steps, plan.steps_per_epoch
    for step, batch in remaining_batches(progress.step, *lengths, epoch_batches):
        run_step(stepper, plan, step, batch, progress, metrics, checkpoints, events)
        stopping = trainer.peers.agree(events.stopping)
        saving = stopping or time.monotonic() - saved > plan.checkpoint_seconds
        evaluating = progress.step in plan.evaluate_at
        read = state if saving or evaluating else statistics
        values = finite_values(trainer.scope, read, plan, step, checkpoints)
        done = f"{plan.name}: step {progress.step} of {plan.total_steps}"
        if evaluating:
            evaluate_now(done)
        if saving:
            metrics.sync()
            checkpoints.save(values, progress)
            saved = time.monotonic()
        if stopping:
            events.message(f"{done}: saved a checkpoint")
            break
    return progress


def without_teacher(names: Sequence[str]) -> list[str]:
    """Return the variables of checkpoints: all but the teacher's, whose weights never change."""
    return [name for name in names if not name.startswith(TEACHER)]


def finite_values(
    scope: static.Scope,
    names: Sequence[str],
    plan: TrainingPlan,
    step: int,
    checkpoints: Checkpoints,
) -> dict[str, np.ndarray]:
    """Return the values of variables.

    Raises:
        TrainingError: a value is not finite.
    """
    # The loss alone is not enough, because a relu turns NaN into 0.
    values = read_variables(scope, names)
    if not all(np.isfinite(value).all() for value in values.values()):
        raise diverged(plan, step, "weights are not finite after", checkpoints)
    return values


def run_step(
    stepper: Stepper,
    plan: TrainingPlan,
    step: int,
    batch: TrainingBatch,
    progress: Progress,
    metrics: Metrics,
    checkpoints: Checkpoints,
    events: Events,
) -> None:
    """Run step ``step`` (from 0), record it, and report the progress.

    Raises:
        TrainingError: the loss is not finite, or an op rejects the values that it reads.
    """
    rate = plan.schedule.rate(step, plan.total_steps)
    started = time.monotonic()
    try:
        loss = stepper.run(batch, rate, step)
    except (RuntimeError, ValueError) as error:
        if not names_failed_op(error):
            raise
        places = "".join(f" ({place})" for place in places_in(str(error))[-1:])
        raise diverged(plan, step, f"{reason_of(error)}{places} at", checkpoints) from error
    if not math.isfinite(loss):
        raise diverged(plan, step, f"the loss is {loss} at", checkpoints)
    speed = progress.advance(len(batch.images), time.monotonic() - started)
    metrics.step(progress.step, loss, rate, speed)
    note = f"loss {loss:.4g}, {speed:.0f} images/s"
    events.progress(plan.name, progress.step, plan.total_steps, "steps", note)


def diverged(plan: TrainingPlan, step: int, what: str, checkpoints: Checkpoints) -> TrainingError:
    """Return the error of a training whose values are not finite, or that an op rejects."""
    rate = plan.schedule.rate(step, plan.total_steps)
    kept = (
        f"The last good checkpoint is in {checkpoints.folder}. "
        if any(checkpoints.folder.glob("step-*.npz"))
        else ""
    )
    return TrainingError(
        f"{plan.name}: {what} step {step + 1} (learning rate {rate:g})",
        f"{kept}Lower base_lr (or step_size for loss distill), or check the data. Then run again.",
    )


def resume(
    trainer: Trainer, checkpoints: Checkpoints, best: Path, name: str, events: Events
) -> Progress:
    """Restore the newest checkpoint and return its progress; step 0 without a checkpoint."""
    checkpoint = checkpoints.newest(events)
    if checkpoint is None:
        return Progress()
    values, progress = checkpoint
    write_variables(trainer.scope, values)
    if progress.best is not None:
        # The file can be newer than the checkpoint, if the process was killed between the two.
        _, progress.best = read_best(best)
    events.message(f"{name}: resuming after step {progress.step}")
    return progress


def evaluate_and_keep(
    trainer: Trainer,
    scorer: Scorer,
    selection_batches: Callable[[], Iterator[EvaluationBatch]],
    progress: Progress,
    metrics: Metrics,
    out: Path,
    events: Events,
    when: str,
) -> None:
    """Evaluate the selection split and write ``best.npz`` if the weights are the best so far.

    The message with the result begins with ``when``.
    """
    started = time.monotonic()
    found = evaluate(scorer, selection_batches(), progress.step, trainer.task, trainer.reference)
    progress.seconds += time.monotonic() - started
    progress.evaluations.append(found)
    metrics.evaluation(found)
    if is_better(found, progress.best, trainer.criterion):
        progress.best = found
        names = persistables(trainer.evaluation)
        write_best(out / BEST, read_variables(trainer.scope, names), found)
    events.message(f"{when}, {described(found, trainer.task)}")
