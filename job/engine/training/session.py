"""Opens a classifier, loads its weights and trains it by a recipe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import static

from job.data.packed import open_packed
from job.data.packed_objects import targets_of
from job.engine.training import loop as training
from job.engine.training import network_programs, programs, zoo
from job.engine.training.checkpoints import BEST, Progress, read_best
from job.engine.training.evaluation import EvaluationBatch, TrainingBatch
from job.engine.training.objective import objective_of
from job.engine.training.program_checks import (
    require_channels_first,
    require_float_outputs,
    require_one_block,
    require_weights,
)
from job.engine.training.programs import Classifier
from job.engine.training.ready_names import LABEL
from job.engine.training.schedule import Schedule
from job.engine.training.tracing import code_errors, places_in
from job.errors import DataError, MachineError, UsageError
from job.events import Events
from job.tasks.classification import CLASSIFICATION
from job.tasks.task import Task

if TYPE_CHECKING:
    from job.data.loader import Loader

# More images would need more memory than a training step.
EVALUATION_BATCH = 25
# Paddle's errors about missing kernels and data types.
_NOT_OF_SHAPES = ("NotFoundError", "UnimplementedError", "UnavailableError", "data type")
_SHAPE_HINT = "Set /model/input_shape to the shape that the network expects, usually [3, 224, 224]."


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes:
        epochs: passes over the training split; ignored if ``max_iters`` is set.
        max_iters: number of steps, or None.
        checkpoint_seconds: time between two checkpoints.
        evaluations_per_epoch: approximate number of evaluations of the selection split per epoch.
            The last step is always followed by an evaluation.
        device: ``cpu`` or ``gpu``.
    """

    epochs: int
    max_iters: int | None
    optimizer: str
    momentum: float
    weight_decay: float
    schedule: Schedule
    seed: int
    device: str
    checkpoint_seconds: float
    evaluations_per_epoch: int

    def steps(self, steps_per_epoch: int) -> int:
        """Return the number of steps of the whole training."""
        return self.epochs * steps_per_epoch if self.max_iters is None else self.max_iters

    def evaluate_at(self, steps_per_epoch: int) -> frozenset[int]:
        """Return the steps after which to evaluate, including the last step."""
        total = self.steps(steps_per_epoch)
        every = max(1, steps_per_epoch // self.evaluations_per_epoch)
        return frozenset({*range(every, total + 1, every), total})

    def add_optimizer(self, classifier: Classifier) -> str:
        """Append the backward pass and the optimizer.

        Returns:
            The name of the learning rate's variable.
        """
        return training.add_optimizer(
            classifier.train,
            classifier.startup,
            classifier.loss,
            name=self.optimizer,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True)
class Session:
    """A network's programs; ``scope`` contains its weights.

    Attributes:
        feeds: inputs of the loss, in the order of a batch's targets.
        task: evaluates the outputs.
    """

    classifier: Classifier
    scope: static.Scope
    executor: static.Executor
    input_shape: tuple[int, int, int]
    feeds: tuple[str, ...] = (LABEL,)
    task: Task = CLASSIFICATION

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the session's scope Paddle's current scope."""
        with static.scope_guard(self.scope):
            yield


def place(device: str) -> paddle.CPUPlace | paddle.CUDAPlace:
    """Return the Paddle place for a device, ``cpu`` or ``gpu``.

    Raises:
        MachineError: the device is ``gpu``, but Paddle has no GPU support or no GPU is visible.
    """
    if device == "cpu":
        return paddle.CPUPlace()
    if not paddle.device.is_compiled_with_cuda():
        raise MachineError(
            "/train/device or /baseline/train/device: found gpu, but the installed paddlepaddle "
            "supports the CPU only",
            "Install paddlepaddle-gpu, or set the device to cpu.",
        )
    if paddle.device.cuda.device_count() == 0:
        raise MachineError(
            "/train/device or /baseline/train/device: found gpu, but Paddle finds no GPU",
            "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or set the device to cpu.",
        )
    return paddle.CUDAPlace(0)


def open_session(
    *,
    name: str | None,
    callable_: str | None,
    inference_model: Path | None,
    classes: int,
    input_shape: tuple[int, int, int],
    width: float,
    seed: int,
    label_smoothing: float,
    device: str = "cpu",
    task: Task = CLASSIFICATION,
) -> Session:
    """Build a network and initialize its weights.

    Exactly one of ``name``, ``callable_`` and ``inference_model`` is set.

    Args:
        name: name of a network of the zoo.
        callable_: ``package.module:function`` of a user's network.
        inference_model: prefix of a saved model, whose weights are kept.
        classes: number of classes.
        input_shape: (channels, height, width).
        width: multiplier of channel counts.
        seed: random seed of the initial weights.
        label_smoothing: label smoothing of the training loss, 0 to 1.
        device: ``cpu`` or ``gpu``.
        task: what the network is trained for.

    Raises:
        UsageError: the network cannot be built, does not accept images of this shape, stores
            channels last, contains control flow, has outputs of integers, or has no weights.
        DataError: the saved model cannot be read or does not fit.
        MachineError: the device is not available.
    """
    scope = static.Scope()
    executor = static.Executor(place(device))
    objective = objective_of(task, classes=classes, label_smoothing=label_smoothing)
    with static.scope_guard(scope):
        if inference_model is not None:
            classifier = programs.from_inference_model(inference_model, scope, objective)
        else:
            with shape_errors(input_shape), code_errors(callable_):
                classifier = network_programs.from_network(
                    lambda: network(
                        name, callable_, classes, input_shape[0], width, objective.anchors
                    ),
                    input_shape=input_shape,
                    objective=objective,
                    seed=seed,
                    own_code=callable_ is not None,
                )
            executor.run(classifier.startup)
        require_one_block(classifier.evaluation)
        require_float_outputs(classifier)
        require_channels_first(classifier.evaluation)
        require_weights(classifier.evaluation)
        check_variables(classifier, input_shape)
        check_input_shape(classifier, executor, input_shape)
    return Session(classifier, scope, executor, input_shape, objective.feeds, task)


def check_variables(classifier: Classifier, input_shape: tuple[int, int, int]) -> None:
    """Check every shape inside the network.

    Raises:
        UsageError: the network does not accept images of this shape.
    """
    block = classifier.evaluation.global_block()
    # The feed and fetch ops of a saved model use variables without a shape.
    computing = [op for op in block.ops if op.type not in ("feed", "fetch")]
    for variable in [block.var(name) for op in computing for name in op.output_arg_names]:
        # The first size is the batch size. It is 0 in XShape variables, which hold no values.
        if 0 in tuple(variable.shape)[1:]:
            raise UsageError(
                f"/model/input_shape: images of {list(input_shape)} are too small for the "
                f"network: its variable {variable.name} has shape {list(variable.shape)[1:]}",
                _SHAPE_HINT,
            )


def check_input_shape(
    classifier: Classifier, executor: static.Executor, input_shape: tuple[int, int, int]
) -> None:
    """Run one image, because some networks fail only when they run.

    Raises:
        UsageError: the network does not accept images of this shape.
    """
    feed = {programs.IMAGE: np.zeros((1, *input_shape), "float32")}
    with shape_errors(input_shape):
        executor.run(classifier.evaluation, feed, list(classifier.outputs))


@contextmanager
def shape_errors(input_shape: tuple[int, int, int]) -> Iterator[None]:
    """Translate Paddle's errors about shapes and kernels; other errors pass unchanged.

    Raises:
        UsageError: Paddle reported that shapes do not fit, or that it has no kernel.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if "Error" not in str(error) and "InvalidArgument" not in str(error):
            raise
        # The last such line names the op and the shapes that do not fit.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        error_lines = [line for line in lines if "Error:" in line]
        reason = error_lines[-1] if error_lines else lines[0]
        places = places_in(str(error))
        if any(kind in reason for kind in _NOT_OF_SHAPES):
            raise UsageError(
                f"/model: Paddle cannot run the network on this device: {reason}",
                f"Change the network at {places[-1]}." if places else "Change the network.",
            ) from error
        raise UsageError(
            f"/model/input_shape: the network does not accept images of {list(input_shape)}: "
            f"{reason}",
            f"If the shape is right, change the network at {places[-1]}."
            if places
            else _SHAPE_HINT,
        ) from error


def network(
    name: str | None,
    callable_: str | None,
    classes: int,
    channels: int,
    width: float,
    anchors: Sequence[int],
) -> paddle.nn.Layer:
    """Build a network of the zoo or a user's network."""
    if callable_ is not None:
        return zoo.from_callable(callable_, classes=classes)
    return zoo.build(str(name), classes=classes, channels=channels, width=width, anchors=anchors)


def packed_batches(path: Path, shape: tuple[int, int, int]) -> Iterator[EvaluationBatch]:
    """Yield the batches of a packed file without reading the whole file into memory."""
    packed = open_packed(path, shape)
    targets = targets_of(path, packed.labels)
    for start in range(0, len(packed.images), EVALUATION_BATCH):
        images = np.array(packed.images[start : start + EVALUATION_BATCH])
        yield EvaluationBatch(images, targets[start : start + EVALUATION_BATCH])


def run_recipe(
    session: Session,
    trainer: training.Trainer,
    recipe: Recipe,
    *,
    name: str,
    loader: "Loader",
    selection: Path,
    out: Path,
    events: Events,
) -> dict[str, Any]:
    """Train, then load the best weights into the trainer's scope.

    Args:
        session: the classifier.
        trainer: its training program.
        recipe: settings of the training.
        name: name of the stage, for messages.
        loader: training batches.
        selection: packed file of the selection split.
        out: folder for checkpoints, metrics and ``best.npz``.
        events: receives progress and messages.

    Returns:
        The report's training record; empty if the training stopped before its last step.

    Raises:
        DataError: the training split is empty.
        TrainingError: the loss or the weights are not finite.
    """
    steps_per_epoch = loader.batches_per_epoch
    if steps_per_epoch == 0:
        raise DataError(
            f"{name}: the training split is empty",
            "Set the training images in /data, or set epochs to 0.",
        )
    plan = training.TrainingPlan(
        name=name,
        total_steps=recipe.steps(steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        evaluate_at=recipe.evaluate_at(steps_per_epoch),
        schedule=recipe.schedule,
        seed=recipe.seed,
        checkpoint_seconds=recipe.checkpoint_seconds,
    )
    progress = training.train(
        trainer,
        plan,
        epoch_batches=lambda epoch, first: (
            TrainingBatch(batch.images, batch.targets) for batch in loader.batches(epoch, first)
        ),
        selection_batches=lambda: packed_batches(selection, session.input_shape),
        out=out,
        events=events,
    )
    if progress.step < plan.total_steps:
        return {}
    programs.write_variables(trainer.scope, read_best(out / BEST)[0])
    return training_record(progress, steps_per_epoch, trainer)


def training_record(
    progress: Progress, steps_per_epoch: int, trainer: training.Trainer
) -> dict[str, Any]:
    """Return the ``training`` entry of the report."""
    primary = trainer.task.primary.key
    return {
        "steps": progress.step,
        "epochs": progress.step / steps_per_epoch,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(progress.images / max(progress.seconds, 1e-9), 2),
        "best_step": progress.best.step if progress.best else None,
        f"best_{primary}": progress.best[primary] if progress.best else None,
        "selected_by": trainer.criterion,
        "freeze_bn_stats": None,
        "calibrated": None,
        "history": list(progress.history),
        "evaluations": [evaluation.record() for evaluation in progress.evaluations],
    }
