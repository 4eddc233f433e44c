"""The training loop of baseline and QAT: resumable, reproducible, keeping the best weights."""

import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import paddle
from paddle import static
from paddle.static import Program

from job.engine.peers import Alone, Plan
from job.engine.programs import (
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

# Paddle's own convolutions write each window out before they multiply, which oneDNN's do not, but
# these reorder what they read and write. That pays for all but 1x1 windows, which Paddle has not to
# write out, and for all of them on small images. tests/bench/training.py measures it.
SMALL_IMAGE_SIDE = 64


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
class Evaluation:
    """Accuracy on the selection split after ``step`` steps, in percent."""

    step: int
    top1: float
    top5: float


@dataclass
class Progress:
    """Where training stands; saved with each checkpoint.

    Attributes:
        step: steps done.
        seconds: time spent in steps and evaluations.
        images: images trained on.
        best: the best evaluation so far.
    """

    step: int = 0
    seconds: float = 0.0
    images: int = 0
    best: Evaluation | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
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


def with_onednn(program: Program, smallest_window: int) -> Program:
    """A copy of ``program`` for running, with oneDNN convolutions for windows of that many pixels.

    Args:
        program: training or evaluation.
        smallest_window: in pixels, height times width.
    """
    program = program.clone()
    block = program.global_block()
    for op in block.ops:
        if op.type not in ("conv2d", "conv2d_grad"):
            continue
        *_, height, width = block.var(op.input("Filter")[0]).shape
        if height * width >= smallest_window:
            op._set_attr("use_mkldnn", True)
            # In test mode oneDNN keeps the weights of the first run, and training changes them.
            op._set_attr("is_test", False)
    return program


def smallest_window(side: int) -> int:
    """From how many pixels on windows are oneDNN's, for images of ``side`` pixels."""
    return 1 if side <= SMALL_IMAGE_SIDE else 2


def evaluate(
    program: Program,
    logits: str,
    executor: static.Executor,
    batches: Iterator[Batch],
) -> tuple[float, float]:
    """Top-1 and top-5 of a program, in percent."""
    right1 = right5 = count = 0
    for batch in batches:
        (scores,) = executor.run(program, {IMAGE: batch.images}, [logits])
        right1 += int(topk_correct(scores, batch.labels, 1).sum())
        right5 += int(topk_correct(scores, batch.labels, 5).sum())
        count += len(batch.labels)
    return 100.0 * right1 / count, 100.0 * right5 / count


class Checkpoints:
    """Training states on disk: written whole or not at all, the last two kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, values: Mapping[str, np.ndarray], progress: Progress) -> None:
        """Write the state after ``progress.step`` steps."""
        state = json.dumps(asdict(progress)).encode()
        path = self.folder / f"step-{progress.step:09d}.npz"
        write_arrays(path, {**values, "progress": np.frombuffer(state, np.uint8)})
        for old in sorted(self.folder.glob("step-*.npz"))[:-2]:
            old.unlink()

    def newest(self, events: Events) -> tuple[dict[str, np.ndarray], Progress] | None:
        """The newest state that can be read; a damaged one is named and passed over."""
        for path in sorted(self.folder.glob("step-*.npz"), reverse=True):
            try:
                values = read_arrays(path)
                state = json.loads(values.pop("progress").tobytes())
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
                events.message(
                    f"{path.name} is damaged ({error}); trying the one before", "warning"
                )
                continue
            evaluations = [Evaluation(**e) for e in state.pop("evaluations")]
            best = state.pop("best")
            return values, Progress(
                **state, evaluations=evaluations, best=Evaluation(**best) if best else None
            )
        return None


def write_arrays(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to an .npz file, atomically."""
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        np.savez(file, **values)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what ``write_arrays`` wrote; its checksums are verified."""
    # numpy leaves a file that it opened itself open when it is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@dataclass(frozen=True)
class Trainer:
    """What the loop needs to run steps, evaluate and save.

    Attributes:
        program: training program with its optimizer.
        learning_rate: name of the learning rate's variable.
        evaluation: program that is evaluated and whose variables are kept when best.
        side: image side in pixels.
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
    side: int
    peers: Alone = field(default_factory=Alone)
    data: str = ""

    def stepper(self, program: Program, seed: int) -> "Stepper":
        """What runs the steps of ``program``, which is made of the trainer's."""
        return Stepper(
            program, self.loss, self.learning_rate, self.scope, self.executor, self.peers, seed
        )


def train(
    trainer: Trainer,
    *,
    name: str,
    epoch_batches: Callable[[int, int], Iterator[Batch]],
    selection_batches: Callable[[], Iterator[Batch]],
    steps_per_epoch: int,
    total_steps: int,
    evaluate_at: Sequence[int],
    schedule: Schedule,
    seed: int,
    checkpoint_seconds: float,
    out: Path,
    events: Events,
) -> Progress:
    """Train, resuming from the newest checkpoint in ``out``; leaves ``best.npz`` there.

    Asked to stop, it saves its state and returns early.

    Args:
        epoch_batches: (epoch, first batch) -> the epoch's batches from there on.
        selection_batches: batches of the selection split.
        evaluate_at: steps after which the selection split is evaluated; holds ``total_steps``.

    Raises:
        TrainingError: the loss is not finite; the last checkpoint and ``best.npz`` remain.
    """
    program = with_onednn(trainer.program, smallest_window(trainer.side))
    evaluation = with_onednn(trainer.evaluation, smallest_window(trainer.side))
    checkpoints = Checkpoints(out / "checkpoints")
    kept = persistables(trainer.program)
    statistics = sorted(batch_norm_statistics(trainer.evaluation))
    progress = resume(trainer, checkpoints, name, events)
    plan = Plan(
        progress.step,
        total_steps,
        steps_per_epoch,
        trainer.data,
        trainer.loss,
        trainer.learning_rate,
    )
    trainer.peers.lead(trainer.scope, program, plan, kept)
    stepper = trainer.stepper(program, seed)
    metrics = Metrics(out / "metrics.jsonl", progress)
    last_save = time.monotonic()
    for step, batch in remaining_batches(
        progress.step, total_steps, steps_per_epoch, epoch_batches
    ):
        started = time.monotonic()
        rate = schedule.rate(step, total_steps)
        loss = stepper.run(batch, rate, step)
        if not math.isfinite(loss):
            what = f"the loss is {loss} at step {step + 1} (learning rate {rate:g})"
            raise diverged(name, what, checkpoints)
        seconds = time.monotonic() - started
        progress.step, progress.seconds = step + 1, progress.seconds + seconds
        progress.images += len(batch.labels)
        speed = len(batch.labels) / seconds
        metrics.step(progress.step, loss, rate, speed)
        note = f"loss {loss:.3f}, {speed:.0f} images/s"
        events.progress(name, progress.step, total_steps, "steps", note)
        stopping = trainer.peers.agree(events.stopping)
        saving = stopping or time.monotonic() - last_save > checkpoint_seconds
        keeping = saving or progress.step in evaluate_at
        values = read_variables(trainer.scope, kept) if keeping else {}
        # A relu turns NaN into 0, so that the loss alone does not tell.
        probed = values or read_variables(trainer.scope, statistics)
        if not all(np.isfinite(value).all() for value in probed.values()):
            what = f"weights are not finite after step {step + 1} (learning rate {rate:g})"
            raise diverged(name, what, checkpoints)
        if progress.step in evaluate_at:
            evaluate_and_keep(trainer, evaluation, selection_batches(), progress, metrics, out)
            top1 = progress.evaluations[-1].top1
            events.message(f"{name}: step {progress.step} of {total_steps}, top-1 {top1:.2f}%")
        if saving:
            metrics.sync()
            checkpoints.save(values, progress)
            last_save = time.monotonic()
        if stopping:
            events.message(f"{name}: state saved after step {progress.step} of {total_steps}")
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


def resume(trainer: Trainer, checkpoints: Checkpoints, name: str, events: Events) -> Progress:
    """Restore the newest checkpoint, if there is one."""
    found = checkpoints.newest(events)
    if found is None:
        return Progress()
    values, progress = found
    write_variables(trainer.scope, values)
    events.message(f"{name}: going on after step {progress.step}")
    return progress


def remaining_batches(
    done: int,
    total_steps: int,
    steps_per_epoch: int,
    epoch_batches: Callable[[int, int], Iterator[Batch]],
) -> Iterator[tuple[int, Batch]]:
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
    peers: Alone
    seed: int

    def run(self, batch: Batch, rate: float, step: int) -> float:
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
    batches: Iterator[Batch],
    progress: Progress,
    metrics: "Metrics",
    out: Path,
) -> None:
    """Evaluate the selection split and keep the weights if they are the best so far."""
    started = time.monotonic()
    top1, top5 = evaluate(program, trainer.logits, trainer.executor, batches)
    progress.seconds += time.monotonic() - started
    evaluation = Evaluation(progress.step, top1, top5)
    progress.evaluations.append(evaluation)
    metrics.evaluation(evaluation)
    if progress.best is None or top1 >= progress.best.top1:
        progress.best = evaluation
        names = persistables(trainer.evaluation)
        write_arrays(out / "best.npz", read_variables(trainer.scope, names))


class Metrics:
    """Each step and evaluation as a line of JSON; a thinned history for the report."""

    POINTS = 500

    def __init__(self, path: Path, progress: Progress) -> None:
        self.progress = progress
        kept = []
        if path.is_file():
            lines = path.read_text().splitlines(keepends=True)
            kept = [
                ln for ln in lines if ln.endswith("\n") and json.loads(ln)["step"] <= progress.step
            ]
        # Whole or not at all: a kill in the middle must not lose the lines of earlier steps.
        partial = path.with_suffix(".tmp")
        partial.write_text("".join(kept))
        partial.replace(path)
        self.path = path

    def step(self, step: int, loss: float, rate: float, speed: float) -> None:
        """Record one optimizer step."""
        line = {
            "step": step,
            "loss": round(loss, 6),
            "lr": rate,
            "images_per_second": round(speed, 1),
        }
        self.write(line)
        self.progress.history.append(line)
        if len(self.progress.history) > 2 * self.POINTS:
            self.progress.history[:] = self.progress.history[1::2]

    def evaluation(self, evaluation: Evaluation) -> None:
        """Record one evaluation."""
        self.write({"step": evaluation.step, "evaluation": asdict(evaluation)})

    def sync(self) -> None:
        """Bring all lines to the disk, before a checkpoint that goes on behind them."""
        with self.path.open("a") as file:
            os.fsync(file.fileno())

    def write(self, line: Mapping[str, object]) -> None:
        """Append one line of JSON."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
