"""Translates a manifest's network and settings to flat values for the engine."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job.engine.inference.pir_file import SUFFIX as PIR_SUFFIX
from job.engine.inference.pir_file import program_file
from job.engine.inference.pir_graph import read_graph
from job.manifest import Manifest
from job.manifest.custom_code import callable_files, code_folders
from job.manifest.spec import QatTrainSpec, TrainSpec
from job.stages.task import task_of
from job.storage.files import is_folder

# Learning rate of quantization-aware training with labels.
DEFAULT_RATE = 1e-4


def model_files(manifest: Manifest) -> Sequence[Path]:
    """Return the files of the model's weights and code."""
    model = manifest.model
    files = [manifest.path(model.weights)] if model.weights else []
    files += callable_files(manifest)
    if model.inference_model:
        prefix = inference_model_prefix(manifest.path(model.inference_model))
        files += [program_file(prefix), Path(f"{prefix}.pdiparams")]
    return tuple(files)


def check_inference_model(manifest: Manifest) -> None:
    """Check whether a given inference model can be read, as far as this needs no Paddle.

    Missing files are reported elsewhere. A model in S3 is checked after its download.

    Raises:
        DataError: the model's ``.json`` file is not a PIR program, or contains ops that cannot be
            translated.
    """
    given = manifest.model.inference_model
    if not given or manifest.uri(given) not in (None, *manifest.localized):
        return
    path = program_file(inference_model_prefix(manifest.path(given)))
    if path.suffix == PIR_SUFFIX:
        read_graph(path)


def inference_model_prefix(path: Path) -> Path:
    """Return the path without suffix of a model.

    Args:
        path: the folder of the model, one of its files, or its path without suffix.
    """
    suffixes = (".pdmodel", PIR_SUFFIX)
    if is_folder(path):
        for suffix in suffixes:
            for program in sorted(path.glob(f"*{suffix}")):
                # A folder can also contain other JSON files.
                if suffix != PIR_SUFFIX or program.with_suffix(".pdiparams").is_file():
                    return program.with_suffix("")
        return path / "model"
    return path.with_suffix("") if path.suffix in (*suffixes, ".pdiparams") else path


def recipe(train: TrainSpec) -> Any:
    """Return the engine's recipe of a training.

    Distillation always uses Adam, whose updates have the size of the learning rate, and a cosine
    schedule. A weight decay would move the scores away from the scores of FP32.
    """
    from job.engine.training.schedule import Schedule
    from job.engine.training.session import Recipe

    given = train.schedule
    optimizer, weight_decay = train.optimizer, train.weight_decay
    schedule = Schedule(
        given.type,
        DEFAULT_RATE if train.base_lr is None else train.base_lr,
        given.milestones,
        given.gamma,
        given.warmup_fraction,
    )
    if isinstance(train, QatTrainSpec) and train.used_loss == "distill":
        optimizer, weight_decay = "adam", 0.0
        schedule = Schedule("cosine", train.step_size, (), 1.0, 0.0)
    return Recipe(
        epochs=train.epochs,
        max_iters=train.max_iters,
        optimizer=optimizer,
        momentum=train.momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        seed=train.seed,
        device=train.device,
        checkpoint_seconds=train.checkpoint_seconds,
        evaluations_per_epoch=train.evaluations_per_epoch,
    )


def network(manifest: Manifest, train: TrainSpec) -> dict[str, Any]:
    """Return the arguments of the engine's ``open_session``.

    The function also adds the folders of the user's code to ``sys.path``.
    """
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
        "task": task_of(manifest),
    }


def open_for_quantization(manifest: Manifest, baseline: Path) -> Any:
    """Open the network in the form in which it is quantized.

    Without training, this is the saved FP32 model: weights that the network computes from other
    weights are stored in it, so they can be quantized.

    Args:
        manifest: names the network.
        baseline: folder of the FP32 model.
    """
    from job.engine.inference.saved_model import PREFIX
    from job.engine.training.session import open_session

    given = network(manifest, manifest.train)
    if not manifest.trains_quantized:
        given |= {"name": None, "callable_": None, "inference_model": baseline / PREFIX}
    return open_session(**given)


def quantize_settings(manifest: Manifest) -> dict[str, Any]:
    """Return the part of PaddleSlim's ``quant_aware`` configuration that the manifest sets."""
    spec = manifest.quantize
    return {
        "weight_quantize_type": spec.weight_quantize_type,
        "moving_rate": spec.moving_rate,
        # Calibrated ranges are better than the largest values that training would measure. The
        # bounds of PACT move, so the scales must follow.
        "scale_trainable": spec.scale_trainable
        if spec.scale_trainable is not None
        else spec.pact or not spec.calibrate,
        "quantize_op_types": list(spec.quantize_op_types),
        "not_quant_pattern": list(spec.not_quant_pattern),
    }
