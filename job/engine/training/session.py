"""Opens a classifier, loads its weights and trains it by a recipe."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import static

from job.data.packed import open_packed
from job.engine.training import loop as training
from job.engine.training import network_programs, programs, zoo
from job.engine.training.checkpoints import BEST, Progress, read_best
from job.engine.training.evaluation import TrainingBatch
from job.engine.training.programs import Classifier
from job.engine.training.schedule import Schedule
from job.engine.training.tracing import code_errors, places_in
from job.engine.weights.match import match, read_weights
from job.engine.weights.torch_names import for_paddle
from job.errors import DataError, MachineError, UsageError
from job.events import Events

if TYPE_CHECKING:
    from job.data.loader import Loader

EVALUATION_BATCH = 100
# Paddle's keys for the published weights of networks that have several widths.
PUBLISHED_AS = {
    "mobilenet_v1": "mobilenetv1_1.0",
    "mobilenet_v2": "mobilenetv2_1.0",
    "mobilenet_v3_large": "mobilenet_v3_large_x1.0",
    "mobilenet_v3_small": "mobilenet_v3_small_x1.0",
}
_SHAPE_HINT = "Set it to the shape that the network expects, usually [3, 224, 224]."


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes:
        epochs: passes over the training split; ignored if ``max_iters`` is set.
        max_iters: number of steps, or None.
        checkpoint_seconds: time between two checkpoints.
        evaluations_per_epoch: evaluations of the selection split per epoch. One more follows the
            last step.
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
    """A classifier's programs; ``scope`` contains its weights."""

    classifier: Classifier
    scope: static.Scope
    executor: static.Executor
    input_shape: tuple[int, int, int]

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
            "device: found gpu, but the installed paddlepaddle supports the CPU only",
            "Install paddlepaddle-gpu, or set the device to cpu.",
        )
    if paddle.device.cuda.device_count() == 0:
        raise MachineError(
            "device: found gpu, but Paddle finds no GPU",
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
) -> Session:
    """Build a classifier and initialise its weights.

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

    Raises:
        UsageError: the network cannot be built, does not accept images of this shape, or stores
            channels last.
        DataError: the saved model cannot be read or does not fit.
        MachineError: the device is not available.
    """
    scope = static.Scope()
    executor = static.Executor(place(device))
    with static.scope_guard(scope):
        if inference_model is not None:
            classifier = programs.from_inference_model(
                inference_model, scope, classes=classes, label_smoothing=label_smoothing
            )
        else:
            with shape_errors(input_shape), code_errors(callable_):
                classifier = network_programs.from_network(
                    lambda: network(name, callable_, classes, input_shape[0], width),
                    input_shape=input_shape,
                    classes=classes,
                    label_smoothing=label_smoothing,
                    seed=seed,
                    own_code=callable_ is not None,
                )
            executor.run(classifier.startup)
        programs.require_channels_first(classifier)
        check_input_shape(classifier, executor, input_shape)
    return Session(classifier, scope, executor, input_shape)


def check_input_shape(
    classifier: Classifier, executor: static.Executor, input_shape: tuple[int, int, int]
) -> None:
    """Check every shape inside the network and run one image.

    Some networks fail only when they run.

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
    feed = {programs.IMAGE: np.zeros((1, *input_shape), "float32")}
    with shape_errors(input_shape):
        executor.run(classifier.evaluation, feed, [classifier.logits])


@contextmanager
def shape_errors(input_shape: tuple[int, int, int]) -> Iterator[None]:
    """Translate Paddle's errors about shapes; errors of a user's network pass unchanged.

    Raises:
        UsageError: Paddle reported that shapes do not fit.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if "Error" not in str(error) and "InvalidArgument" not in str(error):
            raise
        # The last such line names the op and the shapes that do not fit.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        error_lines = [line for line in lines if "Error:" in line]
        places = places_in(str(error))
        raise UsageError(
            f"/model/input_shape: the network does not accept images of {list(input_shape)}: "
            f"{error_lines[-1] if error_lines else lines[0]}",
            f"If the shape is right, change the network at {places[-1]}."
            if places
            else _SHAPE_HINT,
        ) from error


def network(
    name: str | None, callable_: str | None, classes: int, channels: int, width: float
) -> paddle.nn.Layer:
    """Build a network of the zoo or a user's network."""
    if callable_ is not None:
        return zoo.from_callable(callable_, classes=classes)
    return zoo.build(str(name), classes=classes, channels=channels, width=width)


def load_weights(
    session: Session, path: Path, *, sha256: str | None, reset_classifier: bool
) -> list[str]:
    """Load a file of weights into a session.

    A ``.npz`` file may also use the names of the program's variables, as ``weights.npz`` of a run.

    Args:
        session: the classifier.
        path: the file.
        sha256: expected SHA-256 checksum, hexadecimal; None skips the check.
        reset_classifier: keep the initial values of the last layer if its shape differs.

    Returns:
        The names of the weights that keep their initial values.

    Raises:
        DataError: the file is missing, corrupt or of another model, or has another checksum.
    """
    classifier = session.classifier
    names, block = classifier.weight_names, classifier.train.global_block()
    wanted = {
        key: tuple(block.var(name).shape)[:: -1 if name in classifier.transposed else 1]
        for key, name in names.items()
    }
    read = read_weights(path, sha256)
    arrays = read.arrays
    if set(names.values()) <= arrays.keys():
        named = classifier.for_network(arrays)
    else:
        named = for_paddle(arrays, wanted, is_torch=read.is_torch)
    given = match(named, wanted, source=str(path), reset_classifier=reset_classifier)
    initial = programs.read_variables(session.scope, [names[key] for key in given])
    values = {
        name: classifier.turned(name, given[key]).astype(initial[name].dtype)
        for key, name in names.items()
        if key in given
    }
    programs.write_variables(session.scope, values)
    return [key for key in names if key not in given]


def published_weights(name: str) -> Path:
    """Download Paddle's published ImageNet weights of a network, or find them in the cache.

    Args:
        name: name of a network with published weights, see ``UNPUBLISHED`` in job.manifest.rules.

    Returns:
        The path of the ``.pdparams`` file.

    Raises:
        DataError: the download failed.
    """
    factory = getattr(paddle.vision.models, name)
    published = importlib.import_module(factory.__module__).model_urls
    url, digest = published[PUBLISHED_AS.get(name, name)]
    try:
        return Path(paddle.utils.download.get_weights_path_from_url(url, digest))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"/model/pretrained: cannot download {url}: {error}",
            "Download the file on a machine with internet access and name it in /model/weights.",
        ) from error


def packed_batches(path: Path, shape: tuple[int, int, int]) -> Iterator[TrainingBatch]:
    """Yield the batches of a packed file without reading the whole file into memory."""
    packed = open_packed(path, shape)
    for start in range(0, len(packed.labels), EVALUATION_BATCH):
        images = np.array(packed.images[start : start + EVALUATION_BATCH])
        yield TrainingBatch(images, packed.labels[start : start + EVALUATION_BATCH])


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
            TrainingBatch(batch.images, batch.labels) for batch in loader.batches(epoch, first)
        ),
        selection_batches=lambda: packed_batches(selection, session.input_shape),
        out=out,
        events=events,
    )
    if progress.step < plan.total_steps:
        return {}
    programs.write_variables(trainer.scope, read_best(out / BEST)[0])
    return training_record(progress, steps_per_epoch, trainer.criterion)


def training_record(progress: Progress, steps_per_epoch: int, criterion: str) -> dict[str, Any]:
    """Return the ``training`` entry of the report."""
    return {
        "steps": progress.step,
        "epochs": progress.step / steps_per_epoch,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(progress.images / max(progress.seconds, 1e-9), 2),
        "best_step": progress.best.step if progress.best else None,
        "best_top1": progress.best.top1 if progress.best else None,
        "selected_by": criterion,
        "freeze_bn_stats": None,
        "calibrated": None,
        "history": list(progress.history),
        "evaluations": [evaluation.record() for evaluation in progress.evaluations],
    }
