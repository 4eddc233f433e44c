"""The network of a manifest as flat values for the engine."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job.manifest import Manifest
from job.manifest.custom_code import callable_files, code_folders
from job.manifest.spec import TrainSpec
from job.storage.files import is_folder


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


def has_steps(train: TrainSpec) -> bool:
    """Whether a training takes any step."""
    return (train.epochs if train.max_iters is None else train.max_iters) > 0


def recipe(train: TrainSpec) -> Any:
    """The engine's recipe of a training."""
    from job.engine.training.schedule import Schedule
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
    """The part of PaddleSlim's configuration for ``quant_aware`` that the manifest sets."""
    spec = manifest.quantize
    return {
        "weight_quantize_type": spec.weight_quantize_type,
        "moving_rate": spec.moving_rate,
        "scale_trainable": spec.scale_trainable,
        "quantize_op_types": list(spec.quantize_op_types),
        "not_quant_pattern": list(spec.not_quant_pattern),
    }
