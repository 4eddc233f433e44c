"""Tiny models and data for the engine's tests, and a fake receiver of a stage's events."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.data import packed
from job.data.loader import Batch
from job.engine.inference import predictor
from job.engine.inference.saved_model import PREFIX
from job.engine.int8 import build as int8
from job.engine.quantize import fake_quantize, grid, qat
from job.engine.quantize.calibration import DEFAULT, Method, calibrate
from job.engine.quantize.measurement import Images
from job.engine.training import baseline, checkpoints, network_programs, programs, ready_names
from job.engine.training.objective import Labels
from job.engine.training.schedule import Schedule
from job.engine.training.session import Recipe, Session, open_session
from job.host import read_host

SHAPE = (1, 8, 8)
CLASSES = 4
# INT8 may be this much further from FP32 than the fake-quantized model. GPTQ reduces the rounding
# errors of the fake-quantized model on the very images that these tests compare.
WORSE_THAN_FAKE, SLACK = 2.0, 0.02
SETTINGS: dict[str, Any] = {
    "weight_quantize_type": "channel_wise_abs_max",
    "quantize_op_types": [
        "conv2d",
        "depthwise_conv2d",
        "mul",
        "matmul_v2",
        "elementwise_add",
        "pool2d",
    ],
    "not_quant_pattern": ["skip_quant"],
    "moving_rate": 0.9,
    "scale_trainable": True,
}


@dataclass
class News:
    """Records messages, and requests a stop after a number of steps."""

    stop_after: int | None = None
    messages: list[str] = field(default_factory=list)
    steps: int = 0

    def progress(self, what: str, done: int, total: int, unit: str, note: str = "") -> None:
        if unit == "steps":
            self.steps += 1

    def message(self, text: str, level: str = "info") -> None:
        self.messages.append(text)

    @property
    def stopping(self) -> bool:
        return self.stop_after is not None and self.steps >= self.stop_after


def examples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images float32 [count, 1, 8, 8] and labels int64; the class is the bright quarter."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    images = generator.normal(0, 0.5, (count, *SHAPE)).astype("float32")
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
    return images, labels.astype("int64")


class Batches:
    """A loader of arrays; the order depends on the epoch only."""

    def __init__(self, count: int = 64, batch: int = 16, shift: int = 0) -> None:
        self.images, self.labels = examples(count, seed=1)
        self.labels = (self.labels + shift) % CLASSES
        self.batch = batch
        self.batches_per_epoch = count // batch
        self.identity = str(self.labels.tolist())

    def batches(self, epoch: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        order = np.random.default_rng(epoch).permutation(len(self.labels))
        for number in range(start_batch, self.batches_per_epoch):
            index = order[number * self.batch : (number + 1) * self.batch]
            yield Batch(self.images[index], self.labels[index], index)


def pack(path: Path, count: int, seed: int) -> Path:
    """Write a packed file of examples."""
    packed.write(path, [examples(count, seed)], shape=SHAPE, transform="made up")
    return path


def open_tiny(**changes: Any) -> Session:
    """Open a session of a small convnet."""
    values: dict[str, Any] = {
        "name": "convnet",
        "callable_": None,
        "inference_model": None,
        "classes": CLASSES,
        "input_shape": SHAPE,
        "width": 0.5,
        "seed": 3,
        "label_smoothing": 0.0,
    }
    return open_session(**{**values, **changes})


def recipe(**changes: Any) -> Recipe:
    """Return the recipe of a short training."""
    values: dict[str, Any] = {
        "epochs": 0,
        "max_iters": 8,
        "optimizer": "momentum",
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": Schedule("constant", 0.02, (), 0.1, 0.0),
        "seed": 5,
        "device": "cpu",
        "checkpoint_seconds": 1000.0,
        "evaluations_per_epoch": 1,
    }
    return Recipe(**{**values, **changes})


def session_of(
    build: Callable[[], Any], shape: tuple[int, int, int] = (3, 20, 20), classes: int = 10
) -> Session:
    """Open a session of the untrained network that ``build`` returns."""
    scope = programs.static.Scope()
    executor = programs.static.Executor(programs.cpu())
    classifier = network_programs.from_network(
        build, input_shape=shape, objective=Labels(classes, 0.0), seed=0
    )
    with programs.static.scope_guard(scope):
        executor.run(classifier.startup)
    return Session(classifier, scope, executor, shape)


@dataclass(frozen=True)
class Trained:
    """A folder with a trained and exported FP32 model."""

    out: Path
    record: dict[str, Any]
    session: Session


def train_baseline(
    out: Path, news: News | None = None, open_: Callable[..., Session] = open_tiny, **changes: Any
) -> Trained:
    """Train a baseline and export it to ``out``."""
    out.mkdir(exist_ok=True, parents=True)
    selection = out.parent / "selection.bin"
    if not selection.exists():
        pack(selection, 60, seed=2)
    session = open_()
    record = baseline.train(
        session,
        recipe(**changes),
        loader=Batches(),
        selection=selection,
        out=out,
        events=news or News(),
    )
    if record:
        baseline.export(session, out)
    return Trained(out, record, session)


def train_qat(
    fp32: Trained,
    out: Path,
    news: News | None = None,
    *,
    pact: bool = False,
    freeze: bool = True,
    calibrated: bool = True,
    loss: str = "labels",
    settings: dict[str, Any] | None = None,
    open_: Callable[..., Session] = open_tiny,
    meeting: tuple[int, int, str, int] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train a baseline with fake quantization."""
    out.mkdir(exist_ok=True)
    settings = settings or SETTINGS
    if calibrated and not (out / qat.START).exists():
        write_start(fp32, out, settings=settings, pact=pact, open_=open_)
    values = {"schedule": Schedule("constant", 1e-3, (), 0.1, 0.0), "max_iters": 4, **changes}
    return qat.train(
        open_(),
        recipe(**values),
        settings,
        weights=fp32.out / "weights.npz",
        pact=pact,
        start=out / qat.START if calibrated else None,
        freeze_bn_stats=freeze,
        loss=loss,
        loader=Batches(),
        selection=fp32.out.parent / "selection.bin",
        out=out,
        events=news or News(),
        meeting=meeting,
    )


def trained_values(out: Path) -> dict[str, np.ndarray]:
    """Return the variables after the last step of a training with ``checkpoint_seconds`` 0."""
    newest = checkpoints.Checkpoints(out / "checkpoints").newest(News())
    assert newest is not None
    return newest[0]


def write_start(
    fp32: Trained,
    out: Path,
    *,
    settings: dict[str, Any] = SETTINGS,
    method: Method = DEFAULT,
    pact: bool = False,
    open_: Callable[..., Session] = open_tiny,
) -> dict[str, Any]:
    """Calibrate a baseline."""
    calibration = out / "calibration.bin"
    if not calibration.exists():
        pack(calibration, 48, seed=4)
    return qat.write_start(
        open_(),
        settings,
        method,
        weights=fp32.out / "weights.npz",
        pact=pact,
        calibration=calibration,
        out=out,
        progress=lambda phase, done, total: None,
    )


def convert_without_training(
    fp32: Path, calibration: Path, out: Path, method: Method = DEFAULT, classes: int = 10
) -> dict[str, Any]:
    """Calibrate and convert a saved FP32 model, as a run without training does.

    Args:
        fp32: folder of the model.
        calibration: packed file of images.
        out: receives the fake-quantized model.
        method: how to calibrate.
        classes: number of classes.
    """

    def open_() -> Session:
        return open_tiny(name=None, inference_model=fp32 / PREFIX, classes=classes)

    qat.write_start(
        open_(),
        SETTINGS,
        method,
        weights=None,
        pact=False,
        calibration=calibration,
        out=out,
        progress=lambda phase, done, total: None,
    )
    return qat.convert(open_(), SETTINGS, best=out / qat.START, pact=False, out=out)


def scores(prefix: Path, mode: str, images: np.ndarray) -> np.ndarray:
    """Return the scores of a saved model in Paddle Inference."""
    return predictor.Predictor(predictor.configuration(prefix, mode, threads=1)).scores(images)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the relative error of scores, after subtracting the mean over images."""
    found, expected = found - found.mean(0), expected - expected.mean(0)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@dataclass(frozen=True)
class Quantized:
    """A network quantized without training, and the scores of its three models."""

    folder: Path
    images: np.ndarray
    fp32: np.ndarray
    fake: np.ndarray
    int8: np.ndarray
    audit: int8.Audit

    @property
    def fake_error(self) -> float:
        """Relative error of the fake-quantized model against FP32."""
        return error(self.fake, self.fp32)

    @property
    def int8_error(self) -> float:
        """Relative error of the INT8 model against FP32."""
        return error(self.int8, self.fp32)


def assert_close(quantized: Quantized, bound: float) -> None:
    """Assert that INT8 is close to FP32, and not much less accurate than fake quantization."""
    assert quantized.int8_error < bound
    assert quantized.int8_error < WORSE_THAN_FAKE * quantized.fake_error + SLACK


def settle(session: Session, images: np.ndarray, bias: float) -> None:
    """Give an untrained network batch-norm statistics of its own activations.

    With a bias of 1 most of a relu's inputs pass: deep random networks are chaotic otherwise, and
    the smallest rounding changes all their scores.
    """
    classifier = session.classifier
    program = classifier.train.clone()
    norms = [op for op in program.global_block().ops if op.type == "batch_norm"]
    for op in norms:
        op._set_attr("momentum", 0.0)
        name = op.input("Bias")[0]
        values = programs.read_variables(session.scope, [name])
        programs.write_variables(session.scope, {name: np.full_like(values[name], bias)})
    if norms:
        labels = np.zeros((len(images), 1), "int64")
        feed = {programs.IMAGE: images, ready_names.LABEL: labels}
        session.executor.run(program, feed, [classifier.loss])


def quantize(
    session: Session,
    folder: Path,
    bias: float = 0.0,
    *,
    skip_ops: Sequence[str] = (),
    method: Method = DEFAULT,
    **changes: Any,
) -> Quantized:
    """Calibrate, convert and build the INT8 model of an untrained session."""
    settings = {**SETTINGS, **changes}
    classifier, scope = session.classifier, session.scope
    size = (16, *session.input_shape)
    images = np.random.default_rng(0).standard_normal(size).astype("float32")
    with session.active():
        settle(session, images, bias)
        fake_quantize.keep_bias_adds_whole(classifier.evaluation)
        evaluation = classifier.evaluation.clone(for_test=True)
        quantized = fake_quantize.insert(evaluation, scope, settings, for_test=True)
        grid.use_unsigned_steps(quantized)
        (fp32,) = session.executor.run(
            classifier.evaluation, {programs.IMAGE: images}, [classifier.logits]
        )
        calibrate(classifier, quantized, scope, session.executor, Images(images), settings, method)
        program = fake_quantize.convert(quantized, scope)
        programs.save_inference_model(
            program, folder / "fake", classifier.outputs, session.executor
        )
    fake = scores(folder / "fake", predictor.FAKE_QUANTIZED, images)
    types = settings["quantize_op_types"]
    audit, (found,) = int8.build(folder / "fake", folder, types, images, skip_ops=skip_ops)
    return Quantized(folder, images, fp32, fake, found, audit)


needs_vnni = pytest.mark.skipif(
    not read_host().has_vnni, reason="/proc/cpuinfo lacks avx512_vnni: INT8 is inexact here"
)


# Network -> side, width, INT8 ops, ops left in FP32, largest INT8 error against FP32. Errors are
# those of untrained networks, which are chaotic: the bounds are loose, tiny.assert_close is not.
NETWORKS = {
    "convnet": (32, 1.0, 11, 0, 0.10),
    "mobilenet_v1": (64, 0.25, 28, 0, 0.25),
    "mobilenet_v2": (64, 0.35, 53, 0, 0.30),
    "mobilenet_v3_small": (64, 0.5, 54, 0, 0.25),
    "resnet18": (64, 0.25, 21, 0, 0.15),
    "resnet50": (32, 0.25, 54, 0, 0.30),
    "vgg16": (64, 0.125, 16, 0, 0.50),
    "squeezenet1_1": (64, 1.0, 26, 0, 0.50),
    "shufflenet_v2_x0_25": (64, 1.0, 57, 0, 0.35),
    "lenet": (28, 1.0, 5, 0, 0.15),
}
