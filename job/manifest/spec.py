"""The records that a valid manifest becomes: one field for each key that has several values.

Keys with one allowed value, such as ``quantize.dtype``, exist in the schema only.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.uri import S3Uri, is_uri
from job.uri import parse as parse_uri


@dataclass(frozen=True)
class ModelSpec:
    """The network: exactly one of ``name``, ``callable`` and ``inference_model`` is set.

    ``input_shape`` is (channels, height, width).
    """

    name: str | None
    callable: str | None
    inference_model: str | None
    classes: int
    input_shape: tuple[int, int, int]
    width: float
    weights: str | None
    weights_sha256: str | None
    pretrained: bool
    reset_classifier: bool


@dataclass(frozen=True)
class AugmentSpec:
    """What is done to training images; ``scale`` and ``ratio`` are (low, high)."""

    crop: str
    scale: tuple[float, float]
    ratio: tuple[float, float]
    padding: int
    flip: bool


@dataclass(frozen=True)
class DataSpec:
    """The images and how they are cut into splits; ``val_*`` is the test split."""

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
    """The learning rate over time; ``milestones`` and ``warmup_fraction`` are of all steps."""

    type: str
    milestones: tuple[float, ...]
    gamma: float
    warmup_fraction: float


@dataclass(frozen=True)
class TrainSpec:
    """One training: its length, optimizer, learning rate and cadences."""

    epochs: int
    max_iters: int | None
    batch_size: int
    optimizer: str
    base_lr: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    schedule: ScheduleSpec
    seed: int
    device: str
    checkpoint_seconds: float
    evaluations_per_epoch: int


@dataclass(frozen=True)
class QatTrainSpec(TrainSpec):
    """Quantization-aware training; ``freeze_bn_stats`` None means: if shorter than one epoch."""

    freeze_bn_stats: bool | None


@dataclass(frozen=True)
class BaselineSpec:
    """The FP32 model before quantization; ``train.epochs`` 0 leaves the weights as they are."""

    train: TrainSpec


@dataclass(frozen=True)
class FallbackSpec:
    """When to stop leaving ops in FP32: points of top-1 lost, minutes gone."""

    max_top1_drop: float
    max_minutes: float


@dataclass(frozen=True)
class QuantizeSpec:
    """How the network is quantized, in PaddleSlim's own words."""

    strategy: str
    weight_quantize_type: str
    quantize_op_types: tuple[str, ...]
    not_quant_pattern: tuple[str, ...]
    moving_rate: float
    scale_trainable: bool
    pact: bool
    calibrate: bool
    post_algo: str
    fallback: FallbackSpec | None


@dataclass(frozen=True)
class Int8Spec:
    """What of the fake-quantized model runs in INT8; ``quantized_ops`` None means all of it."""

    quantized_ops: tuple[str, ...] | None
    skip_ops: tuple[str, ...]
    debug: bool


@dataclass(frozen=True)
class AccuracySpec:
    """How the saved models are scored; ``shards`` are parts of the test split."""

    shards: int


@dataclass(frozen=True)
class BenchmarkSpec:
    """What is timed; ``min_seconds`` and ``min_samples`` are per model and row.

    ``threads`` are of one instance, ``instances`` have one thread each; ``isa`` are caps.
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
    """Limits that fail the run; ``max_top1_drop`` in points, None switches a gate off."""

    max_top1_drop: float | None
    min_speedup: float | None


@dataclass(frozen=True)
class PublishedSpec:
    """Figures that others published for a model; accuracies in percent."""

    fp32_images_per_second: float | None
    int8_images_per_second: float | None
    qat_fake_top1: float | None
    int8_top1: float | None
    qat_fake_top5: float | None
    int8_top5: float | None


@dataclass(frozen=True)
class EntrySpec:
    """One model of a matrix: what it sets otherwise than the manifest around it."""

    name: str
    set: Mapping[str, Any]
    published: PublishedSpec | None


@dataclass(frozen=True)
class StorageSpec:
    """Where S3 storage is, and how the job works with it; None means the environment's setting."""

    endpoint_url: str | None
    region: str | None
    addressing: str
    ca_bundle: str | None
    scratch: str | None
    cache_gib: float
    lease_seconds: float


@dataclass(frozen=True)
class RunSpec:
    """How long the job may take to stop, and in all; ``max_minutes`` None sets no limit."""

    grace_seconds: float
    max_minutes: float | None


@dataclass(frozen=True)
class Manifest:
    """A valid manifest.

    Attributes:
        output: where the run is written, a folder relative to the current directory, or a URI.
        resolved: the whole manifest as JSON, with defaults and overrides, without ``$schema``;
            parsed again it gives the same records.
        base: the absolute folder that paths in ``model`` and ``data`` are relative to: that of
            the manifest's file, or the current directory for standard input.
        prefix: of a manifest that was read from S3, what its paths are relative to instead.
        localized: the local path of what it names in S3, once that is there.
    """

    version: int
    name: str
    model: ModelSpec
    data: DataSpec
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

    def uri(self, text: str) -> S3Uri | None:
        """Return where in S3 something is that the manifest names; None if it is not in S3.

        Raises:
            UsageError: the text leads out of the bucket, or is no address in S3.
        """
        if is_uri(text):
            return parse_uri(text)
        if self.prefix is None or Path(text).is_absolute() or text.startswith("~"):
            return None
        key = posixpath.normpath(posixpath.join(self.prefix.key, text))
        return parse_uri(f"s3://{self.prefix.bucket}/{'' if key == '.' else key}")

    def path(self, text: str) -> Path:
        """Return the absolute path of a file or folder that the manifest names.

        What is in S3 has one once it has been fetched, see ``job.pipeline.fetch_inputs.localized``.
        """
        uri = self.uri(text)
        return self.base / expanded(text) if uri is None else self.localized[uri]

    def origin(self, path: Path) -> S3Uri | None:
        """Return where in S3 a local path comes from; None for a file of this machine's own."""
        return next((uri for uri, local in self.localized.items() if local == path), None)

    def called(self, path: Path) -> str:
        """Name a path independently of where it lies, if it is relative to the manifest."""
        uri = self.origin(path)
        if uri is None:
            below = path.is_relative_to(self.base)
            return str(path.relative_to(self.base)) if below else str(path)
        if self.prefix is not None and uri.bucket == self.prefix.bucket:
            below = uri.key.startswith(self.prefix.below)
            return uri.key.removeprefix(self.prefix.below) if below else str(uri)
        return str(uri)


def expanded(text: str) -> Path:
    """Return a path with ``~`` replaced by the home folder, where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        # Nobody's home: as in a shell, a name like any other.
        return Path(text)


def data_file(root: str | None, name: str) -> str:
    """What a list or packed file is called relative to the manifest."""
    return name if is_uri(name) else posixpath.join(root or ".", name)


def stands_alone(name: str) -> bool:
    """Whether a list or packed file is not in the data set's folder."""
    return is_uri(name) or posixpath.isabs(name)
