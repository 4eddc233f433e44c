"""The manifest: JSON, checked once against its schema, becomes frozen records.

The schema (``schemas/manifest.schema.json``) holds every default, so the records have none and each
key of the schema is a field here.
"""

import posixpath
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from job.errors import Fault, ManifestError
from job.manifest.read import (
    STDIN,
    put,
    read_json,
    read_remote,
    read_text,
    split_override,
    split_pointer,
)
from job.manifest.rules import rule_faults
from job.manifest.schema import fill, normalise, schema
from job.manifest.validate import misplaced, schema_faults, show
from job.uri import S3Uri, is_uri
from job.uri import parse as parse_uri

T = TypeVar("T")

# What all entries of a matrix have in common.
ENTRY_FIXED = ("version", "name", "storage", "run", "output", "matrix")


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
    activation_quantize_type: str
    quantize_op_types: tuple[str, ...]
    not_quant_pattern: tuple[str, ...]
    moving_rate: float
    window_size: int
    weight_bits: int
    activation_bits: int
    dtype: str
    onnx_format: bool
    for_tensorrt: bool
    is_full_quantize: bool
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


def load(source: str, overrides: Sequence[str] = (), stdin: TextIO | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
        source: path of a JSON file, its address in S3, or ``-`` for standard input.
        overrides: texts such as ``train.max_iters=100`` or ``/train/max_iters=100``.
        stdin: what ``-`` reads; ``sys.stdin`` by default.

    Raises:
        UsageError: the file cannot be opened, or an override has no ``=``.
        DataError: it is in S3 and cannot be had.
        ManifestError: the manifest is wrong; lists every fault.
    """
    if is_uri(source):
        uri = parse_uri(source)
        prefix = S3Uri(uri.bucket, uri.key.rpartition("/")[0])
        document = read_json(read_remote(uri), source)
        return parse(document, source, Path.cwd(), overrides, prefix=prefix)
    document = read_json(read_text(source, stdin), source)
    base = Path.cwd() if source == STDIN else Path(source).absolute().parent
    return parse(document, source, base, overrides)


def parse(
    document: Any,
    source: str,
    base: Path,
    overrides: Sequence[str] = (),
    *,
    prefix: S3Uri | None = None,
) -> Manifest:
    """Check a JSON document, which stays as it is, and make records of it.

    Args:
        document: what ``json.loads`` made of a manifest.
        source: its name in messages.
        base: the folder that its paths are relative to.
        overrides: as for ``load``.
        prefix: that its paths are relative to if it was read from S3.

    Raises:
        UsageError: an override has no ``=``.
        ManifestError: the manifest is wrong; lists every fault.
    """
    changes = [split_override(text) for text in overrides]
    manifest = replace(_parse(document, source, base, changes), prefix=prefix)
    # What an entry of the matrix sets is as strictly checked as the manifest itself.
    entries(manifest, source)
    return manifest


def entries(manifest: Manifest, source: str = "manifest") -> tuple[Manifest, ...]:
    """Return the manifest of each model of a matrix; none for a single model.

    Each has a name and an output folder of its own and, apart from these, is what the manifest
    would be with the entry's keys set.

    Raises:
        ManifestError: an entry sets something wrong; lists every fault of every entry.
    """
    single = {**manifest.resolved, "matrix": None}
    found, faults = [], []
    for index, entry in enumerate(manifest.matrix or ()):
        changes = [(split_pointer(name), value) for name, value in entry.set.items()]
        place = f"/matrix/{index}/set"
        fixed = [name for (name, *_), _ in changes if name in ENTRY_FIXED]
        changes += [(("name",), entry.name), (("output",), f"{manifest.output}/{entry.name}")]
        faults += [Fault(place, f"cannot set {name}, which the entries share") for name in fixed]
        try:
            entry_manifest = _parse(single, source, manifest.base, changes)
            found.append(
                replace(entry_manifest, prefix=manifest.prefix, localized=manifest.localized)
            )
        except ManifestError as error:
            faults += [
                Fault(place, f"{f.pointer}: {f.message}", f.suggestion) for f in error.faults
            ]
    names = [entry.name for entry in manifest.matrix or ()]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [Fault("/matrix", f"two entries are named {name}") for name in twice]
    if faults:
        raise ManifestError(source, tuple(faults))
    return tuple(found)


def _parse(
    document: Any, source: str, base: Path, changes: Sequence[tuple[tuple[str, ...], Any]]
) -> Manifest:
    filled, faults = _override(fill(document, schema()), changes)
    filled = fill(filled, schema())
    _check_version(filled, source)
    faults += schema_faults(filled)
    faults += rule_faults(filled, [fault.pointer for fault in faults])
    if faults:
        raise ManifestError(source, tuple(sorted(faults, key=lambda f: _rank(document, f))))
    resolved = normalise(filled, schema())
    resolved.pop("$schema", None)
    if resolved["output"] is None:
        resolved["output"] = f"runs/{resolved['name']}"
    return _record(Manifest, {**resolved, "resolved": resolved, "base": base})


def _override(
    document: Any, changes: Sequence[tuple[tuple[str, ...], Any]]
) -> tuple[Any, list[Fault]]:
    faults: list[Fault] = []
    for path, value in changes:
        try:
            document = put(document, path, value, misplaced)
        except ManifestError as error:
            faults += error.faults
    return document, faults


def _check_version(document: Any, source: str) -> None:
    # Another version's other faults would only mislead.
    if not isinstance(document, dict) or "version" not in document:
        return
    version = document["version"]
    if isinstance(version, bool) or version != 1:
        message = f"expected 1, the version that this program reads, found {show(version)}"
        raise ManifestError(source, (Fault("/version", message),))


def _rank(document: Any, fault: Fault) -> list[int]:
    """Sort faults as a reader of the manifest meets them; what is not given comes last."""
    ranks = []
    for name in split_pointer(fault.pointer):
        if isinstance(document, dict):
            names = list(document)
            ranks.append(names.index(name) if name in document else len(names))
            document = document.get(name)
        elif isinstance(document, list) and name.isdecimal():
            ranks.append(int(name))
            document = document[int(name)] if int(name) < len(document) else None
    return ranks


def _record(kind: type[T], values: Mapping[str, Any]) -> T:
    hints = typing.get_type_hints(kind)
    arguments = {
        each.name: _value(hints[each.name], values[each.name])
        for each in fields(kind)  # type: ignore[arg-type]
        if each.name in values
    }
    return kind(**arguments)


def _value(hint: Any, value: Any) -> Any:
    """Make records of objects, also of those in arrays and of those that may be null."""
    if value is None:
        return None
    record = next((kind for kind in _parts(hint) if is_dataclass(kind)), None)
    if isinstance(value, list):
        return tuple(_value(record, item) if record else item for item in value)
    return _record(typing.cast(type[Any], record), value) if record else value


def _parts(hint: Any) -> tuple[Any, ...]:
    """Return a type and all that it is made of, such as tuple[A, ...] | None."""
    inner = typing.get_args(hint)
    return (hint, *(part for each in inner for part in _parts(each)))
