"""What several stages read: the splits of the data set and the external files of a manifest."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job.data import transforms
from job.data.loader import Loader, Normalisation
from job.data.opening import data_file, stands_alone
from job.data.s3.images import remote_of
from job.data.sources import BadImage
from job.data.splits import Part, Splits, split
from job.events import Events
from job.manifest import Manifest
from job.manifest.custom_code import callable_files, code_folders
from job.manifest.load import AugmentSpec, DataSpec, TrainSpec

SELECTION, CALIBRATION, TEST = "selection.bin", "calibration.bin", "test.bin"
POST = "post"
# Settings that change how fast or how safely a stage works, but not what it leaves.
WITHOUT_EFFECT = ("workers", "checkpoint_seconds")


def settings_of(spec: Any, *without: str) -> Mapping[str, Any]:
    """A record's settings that can change a stage's output."""
    left_out = {*without, *WITHOUT_EFFECT}
    return {key: value for key, value in asdict(spec).items() if key not in left_out}


def data_files(manifest: Manifest) -> Sequence[Path]:
    """Files and folders that the data set is read from."""
    data = manifest.data
    if data.format in ("digits", "synthetic"):
        return ()
    if data.format == "packed":
        names = (data.train_file, data.selection_file, data.val_file)
        return tuple(manifest.path(data_file(data.root, name)) for name in names if name)
    root = manifest.path(data.root or ".")
    if data.format == "imagenet_list":
        lists = (data.train_list, data.selection_list, data.val_list)
        return (root, *(manifest.path(name) for name in lists if name and stands_alone(name)))
    if data.format == "class_folders" and is_folder(root):
        # Not the root, which may hold the manifest and the output as well.
        names = (data.train_dir, data.selection_dir, data.val_dir)
        return tuple(root / name for name in names if name)
    return (root,)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; one that may not be looked at is told when it is read."""
    try:
        return path.is_dir()
    except OSError:
        return False


def model_files(manifest: Manifest) -> Sequence[Path]:
    """Files that the model's weights and code are read from."""
    model = manifest.model
    files = [manifest.path(model.weights)] if model.weights else []
    files += callable_files(manifest)
    if model.inference_model:
        prefix = inference_model_prefix(manifest.path(model.inference_model))
        files += [Path(f"{prefix}.pdmodel"), Path(f"{prefix}.pdiparams")]
    return tuple(files)


def inference_model_prefix(path: Path) -> Path:
    """The path without suffix, of a model given as such, as a file, or as the folder it is in."""
    if is_folder(path):
        found = sorted(path.glob("*.pdmodel"))
        return found[0].with_suffix("") if found else path / "model"
    return path.with_suffix("") if path.suffix in (".pdmodel", ".pdiparams") else path


def open_splits(manifest: Manifest, out: Path) -> Splits:
    """The data set's splits; the same ones each time.

    Args:
        manifest: names the data set.
        out: the stage's folder, beside which archives are unpacked once for all stages.
    """
    model = manifest.model
    cache = out.parent.parent / ".cache"
    return split(
        manifest.data,
        model.classes,
        model.input_shape,
        manifest.path,
        cache,
        remote=remote_of(manifest),
    )


def normalisation(data: DataSpec) -> Normalisation:
    """Mean and standard deviation of a manifest."""
    return Normalisation(data.mean, data.std)


def evaluation_transform(manifest: Manifest) -> transforms.Evaluate:
    """The transform of test, selection and calibration images."""
    _, height, width = manifest.model.input_shape
    return transforms.Evaluate((height, width), manifest.data.resize_short)


def training_transform(manifest: Manifest, spec: AugmentSpec) -> transforms.Augment:
    """The transform of training images."""
    return transforms.Augment(
        evaluation_transform(manifest),
        crop=spec.crop,
        scale=spec.scale,
        ratio=spec.ratio,
        padding=spec.padding,
        flip=spec.flip,
    )


def training_loader(
    manifest: Manifest, part: Part, train: TrainSpec, events: Events, bad: list[BadImage]
) -> Loader:
    """Shuffled, augmented batches of the training split.

    Args:
        manifest: names transforms and workers.
        part: the training split.
        train: batch size and seed.
        events: told of each bad image.
        bad: receives each bad image.
    """

    def on_bad(image: BadImage) -> None:
        bad.append(image)
        events.message(f"bad image {image.path}: {image.reason}", "warning")

    return Loader(
        part.source,
        part.indices,
        training_transform(manifest, manifest.data.augment),
        normalisation(manifest.data),
        batch_size=train.batch_size,
        seed=train.seed,
        shuffle=True,
        # A small last batch would give batch norm poor statistics.
        drop_last=len(part) >= train.batch_size,
        replace_bad=True,
        workers=manifest.data.workers,
        max_bad_fraction=manifest.data.max_bad_fraction,
        on_bad=on_bad,
    )


def has_steps(train: TrainSpec) -> bool:
    """Whether a training takes any step."""
    return (train.epochs if train.max_iters is None else train.max_iters) > 0


def recipe(train: TrainSpec) -> Any:
    """The engine's recipe of a training."""
    from job.engine.training.loop import Schedule
    from job.engine.training.session import Recipe

    schedule = train.schedule
    return Recipe(
        epochs=train.epochs,
        max_iters=train.max_iters,
        optimizer=train.optimizer,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        schedule=Schedule(
            schedule.type,
            train.base_lr,
            schedule.milestones,
            schedule.gamma,
            schedule.warmup_fraction,
        ),
        seed=train.seed,
        device=train.device,
        checkpoint_seconds=train.checkpoint_seconds,
        evaluations_per_epoch=train.evaluations_per_epoch,
    )


def network(manifest: Manifest, train: TrainSpec) -> dict[str, Any]:
    """The network as the engine's flat values; the user's own module can then be imported."""
    model = manifest.model
    if model.callable:
        sys.path += [str(path) for path in code_folders(manifest) if str(path) not in sys.path]
    given = model.inference_model
    return {
        "name": model.name,
        "callable_": model.callable,
        "inference_model": inference_model_prefix(manifest.path(given)) if given else None,
        "classes": model.classes,
        "input_shape": model.input_shape,
        "width": model.width,
        "seed": train.seed,
        "label_smoothing": train.label_smoothing,
        "device": train.device,
    }


def quantize_settings(manifest: Manifest) -> dict[str, Any]:
    """PaddleSlim's own configuration for ``quant_aware`` and ``convert``."""
    spec = manifest.quantize
    names = (
        "weight_quantize_type",
        "activation_quantize_type",
        "weight_bits",
        "activation_bits",
        "moving_rate",
        "window_size",
        "dtype",
        "onnx_format",
        "for_tensorrt",
        "is_full_quantize",
        "scale_trainable",
    )
    lists = {
        "quantize_op_types": list(spec.quantize_op_types),
        "not_quant_pattern": list(spec.not_quant_pattern),
    }
    return {**{name: getattr(spec, name) for name in names}, **lists}
