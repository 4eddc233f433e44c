"""Dataclasses of a valid manifest: one field for each key.

Keys with only one allowed value, such as ``quantize.dtype``, exist in the schema only.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.uri import S3Uri, is_uri, parse

# Formats of data sets without files.
BUILT_IN = ("digits", "digit_scenes", "synthetic")


@dataclass(frozen=True)
class ModelSpec:
    """The network: a name, callable or saved model. The input is (channels, height, width)."""

    name: str | None
    callable: str | None
    inference_model: str | None
    classes: int
    input_shape: tuple[int, int, int]
    width: float
    weights: str | None
    weights_sha256: str | None
    pretrained: bool
    random_weights: bool
    reset_classifier: bool


@dataclass(frozen=True)
class AugmentSpec:
    """Augmentation of training images; ``scale`` and ``ratio`` are (low, high)."""

    crop: str
    scale: tuple[float, float]
    ratio: tuple[float, float]
    padding: int
    flip: bool


@dataclass(frozen=True)
class DataSpec:
    """The data set, its splits and its preprocessing; ``val_*`` is the test split."""

    format: str
    root: str | None
    train_list: str | None
    selection_list: str | None
    val_list: str | None
    train_dir: str | None
    selection_dir: str | None
    val_dir: str | None
    train_file: str | None
    selection_file: str | None
    val_file: str | None
    train_labels: bool
    selection_fraction: float
    val_fraction: float
    resize_short: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: AugmentSpec
    workers: int
    max_bad_fraction: float
    calibration_images: int


@dataclass(frozen=True)
class ScheduleSpec:
    """Learning rate schedule; ``milestones`` and ``warmup_fraction`` are shares of all steps."""

    type: str
    milestones: tuple[float, ...]
    gamma: float
    warmup_fraction: float


@dataclass(frozen=True)
class TrainSpec:
    """One training phase: length, optimizer, learning rate, checkpoint and evaluation intervals."""

    epochs: int
    max_iters: int | None
    batch_size: int
    optimizer: str
    base_lr: float | None
    momentum: float
    weight_decay: float
    label_smoothing: float
    schedule: ScheduleSpec
    seed: int
    device: str
    checkpoint_seconds: float
    evaluations_per_epoch: int

    @property
    def has_steps(self) -> bool:
        """Whether the training has at least one step."""
        return (self.epochs if self.max_iters is None else self.max_iters) > 0


@dataclass(frozen=True)
class QatTrainSpec(TrainSpec):
    """Quantization-aware training.

    If ``loss`` is None, training uses labels if ``base_lr`` is set, otherwise it distils. If
    ``freeze_bn_stats`` is None, the statistics are frozen.
    """

    freeze_bn_stats: bool | None
    loss: str | None
    step_size: float

    @property
    def used_loss(self) -> str:
        """The loss: ``labels`` or ``distill``."""
        return self.loss or ("distill" if self.base_lr is None else "labels")


@dataclass(frozen=True)
class BoxAugmentSpec:
    """Augmentation of training images with objects.

    Attributes:
        distort: strength of the changes of colours, 0 to 1.
        expand: largest factor of the canvas; 1: none.
        crop: smallest side of a crop as a share of the image's side; 1: none.
        flip: directions: horizontal, vertical, transpose.
        sizes: sides of square training images in pixels; None: the size of the network's input.
    """

    distort: float
    expand: float
    crop: float
    flip: tuple[str, ...]
    sizes: tuple[int, ...] | None


@dataclass(frozen=True)
class DetectionSpec:
    """Settings of task detection.

    Attributes:
        class_names: names in the order of the numbers; None: the names in the data set.
        anchors: (width, height) of each anchor in pixels of the network's input, by head. The heads
            have the strides 8, 16 and 32.
        score_threshold: score that a detection must exceed, 0 to 1.
        nms_threshold: highest IoU of two detections of a class.
        augment: augmentation of training images.
    """

    class_names: tuple[str, ...] | None
    anchors: tuple[tuple[tuple[int, int], ...], ...]
    score_threshold: float
    nms_threshold: float
    augment: BoxAugmentSpec


@dataclass(frozen=True)
class BaselineSpec:
    """The FP32 model before quantization; ``train.epochs`` 0 trains nothing."""

    train: TrainSpec


@dataclass(frozen=True)
class FallbackSpec:
    """Stop conditions of the fallback search: top-1 drop in percentage points, and minutes."""

    max_top1_drop: float
    max_minutes: float


@dataclass(frozen=True)
class QuantizeSpec:
    """Quantization settings, with PaddleSlim's names."""

    strategy: str
    weight_quantize_type: str
    quantize_op_types: tuple[str, ...]
    not_quant_pattern: tuple[str, ...]
    moving_rate: float
    scale_trainable: bool | None
    pact: bool
    calibrate: bool
    post_algo: str
    weight_rounding: str
    correct_bias: bool
    equalize: bool
    fallback: FallbackSpec | None


@dataclass(frozen=True)
class Int8Spec:
    """Which ops run in INT8; ``quantized_ops`` None means all quantized ops.

    If ``repair`` is true, ops that make the INT8 model wrong are found and stay in FP32.
    """

    quantized_ops: tuple[str, ...] | None
    skip_ops: tuple[str, ...]
    repair: bool
    debug: bool


@dataclass(frozen=True)
class AccuracySpec:
    """How the saved models are scored; ``shards`` is the number of parts of the test split."""

    shards: int


@dataclass(frozen=True)
class BenchmarkSpec:
    """Settings of the benchmark. A row is one line of the speed table.

    Attributes:
        threads: numbers of threads of one process; one row per value.
        instances: numbers of one-thread processes that run at the same time; one row per value.
        isa: caps of oneDNN's instruction set; one row per value.
        min_seconds: minimum measurement time of each model in each row, in seconds.
        min_samples: minimum number of timed calls of each model in each row.
    """

    batch_sizes: tuple[int, ...]
    threads: tuple[int, ...]
    instances: tuple[int, ...]
    isa: tuple[str, ...]
    engines: tuple[str, ...]
    warmup_batches: int
    min_seconds: float
    min_samples: int
    rounds: int


@dataclass(frozen=True)
class GatesSpec:
    """Limits of the result. None disables a gate.

    Attributes:
        int8_matches_fake: minimum signal-to-noise ratio of the INT8 scores against the
            fake-quantized scores, in decibels.
        max_top1_drop: maximum top-1 drop of INT8 against FP32, in percentage points.
        max_map_drop: maximum mAP drop of INT8 against FP32, in percentage points.
        int8_matches_fp32: minimum signal-to-noise ratio of the INT8 outputs against FP32, in
            decibels (task outputs).
        min_speedup: minimum speedup: INT8 images/s over FP32 images/s.
    """

    int8_matches_fake: float | None
    max_top1_drop: float | None
    max_map_drop: float | None
    int8_matches_fp32: float | None
    min_speedup: float | None


@dataclass(frozen=True)
class PublishedSpec:
    """Published figures of a model; accuracies in percent."""

    fp32_images_per_second: float | None
    int8_images_per_second: float | None
    qat_fake_top1: float | None
    int8_top1: float | None
    qat_fake_top5: float | None
    int8_top5: float | None


@dataclass(frozen=True)
class EntrySpec:
    """One model of a matrix: the keys that it overrides, and its published figures."""

    name: str
    set: Mapping[str, Any]
    published: PublishedSpec | None


@dataclass(frozen=True)
class StorageSpec:
    """Access to S3, cache size, lifetime of the lock, retries; None: the environment's setting."""

    endpoint_url: str | None
    region: str | None
    addressing: str
    ca_bundle: str | None
    scratch: str | None
    cache_gib: float
    lease_seconds: float
    retry_minutes: float


@dataclass(frozen=True)
class RunSpec:
    """Time limits; ``max_minutes`` None sets no limit."""

    grace_seconds: float
    max_minutes: float | None


@dataclass(frozen=True)
class Manifest:
    """A valid manifest.

    Attributes:
        output: output location: a folder relative to the current directory, or an S3 URI.
        resolved: the manifest as JSON, with defaults and overrides, without ``$schema``. Parsing
            it gives an equal manifest.
        base: absolute folder that paths in ``model`` and ``data`` are relative to: the folder of
            the manifest's file, or the current directory for standard input.
        prefix: S3 prefix that paths are relative to instead, for a manifest read from S3.
        localized: local path of each fetched S3 input.
    """

    version: int
    name: str
    task: str
    model: ModelSpec
    data: DataSpec
    detection: DetectionSpec
    baseline: BaselineSpec
    quantize: QuantizeSpec
    train: QatTrainSpec
    int8: Int8Spec
    accuracy: AccuracySpec
    benchmark: BenchmarkSpec
    gates: GatesSpec
    matrix: tuple[EntrySpec, ...] | None
    storage: StorageSpec
    run: RunSpec
    output: str
    resolved: Mapping[str, Any]
    base: Path
    prefix: S3Uri | None = None
    localized: Mapping[S3Uri, Path] = field(default_factory=dict)

    @property
    def trains_quantized(self) -> bool:
        """Whether the fake-quantized model is trained."""
        return self.quantize.strategy == "aware" and self.train.has_steps

    def uri(self, text: str) -> S3Uri | None:
        """Return the S3 URI of a path in the manifest; None for a local path.

        Raises:
            UsageError: the path leaves the bucket, or is not a valid S3 URI.
        """
        if is_uri(text):
            return parse(text)
        if self.prefix is None or Path(text).is_absolute() or text.startswith("~"):
            return None
        key = posixpath.normpath(posixpath.join(self.prefix.key, text))
        return parse(f"s3://{self.prefix.bucket}/{'' if key == '.' else key}")

    def path(self, text: str) -> Path:
        """Return the absolute local path of a path in the manifest.

        An S3 input has a local path after ``job.pipeline.fetch_inputs.localized`` fetched it.
        """
        uri = self.uri(text)
        return self.base / expanded(text) if uri is None else self.localized[uri]

    def origin(self, path: Path) -> S3Uri | None:
        """Return the S3 URI that a local path was fetched from; None for other files."""
        return next((uri for uri, local in self.localized.items() if local == path), None)

    def called(self, path: Path) -> str:
        """Return a name for a path that stays the same when the manifest's folder moves."""
        uri = self.origin(path)
        if uri is None:
            below = path.is_relative_to(self.base)
            return str(path.relative_to(self.base)) if below else str(path)
        if self.prefix is not None and uri.bucket == self.prefix.bucket:
            below = uri.key.startswith(self.prefix.below)
            return uri.key.removeprefix(self.prefix.below) if below else str(uri)
        return str(uri)


def expanded(text: str) -> Path:
    """Return a path with ``~`` replaced by the home folder, if the home folder exists."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        # A user without a home folder: keep the name, as a shell does.
        return Path(text)


def data_file(root: str | None, name: str) -> str:
    """Return the path of a list or packed file relative to the manifest."""
    return name if is_uri(name) else posixpath.join(root or ".", name)


def stands_alone(name: str) -> bool:
    """Return whether a list or packed file is outside the folder of the data set."""
    return is_uri(name) or posixpath.isabs(name)
