"""Checks of the model in a manifest that need no Paddle and little time, before any stage runs."""

from collections.abc import Sequence
from pathlib import Path

from job.errors import DataError
from job.manifest import Manifest, entries
from job.manifest.callable_source import check_callable
from job.manifest.initial_weights import check_initial_weights
from job.storage.file_kinds import ONNX, SAFETENSORS, TORCH, TORCH_LEGACY, model_kind_of

# Program file of Paddle 1.
_PADDLE_1 = "__model__"
_OTHER_SUFFIXES = (".onnx", ".pt", ".pth", ".safetensors")


def check_models(
    manifest: Manifest, source: str, *, index: int | None = None, needs_weights: bool = True
) -> None:
    """Check weights, saved models and the functions of custom networks.

    Files that do not exist are skipped, because the plan reports all missing inputs together. So
    are files in S3 that are not downloaded yet.

    Args:
        manifest: a manifest of one model or of a matrix.
        source: the manifest's name in messages.
        index: the number of one model of a matrix; None for all models.
        needs_weights: False if the run ends before the FP32 model is made.

    Raises:
        ManifestError: a model has no weights, is not trained, and does not set
            /model/random_weights.
        DataError: a file has the wrong kind, or contains no network of the task.
        UsageError: an output of a detector has no head, or the function of a custom network cannot
            be imported or called.
    """
    if needs_weights:
        check_initial_weights(manifest, source)
    for single in chosen(manifest, index):
        check_callable(single)
        _check_files(single)


def chosen(manifest: Manifest, index: int | None) -> Sequence[Manifest]:
    """Return the manifest of each model, or of the model of a matrix with this number."""
    singles = entries(manifest) or (manifest,)
    # A wrong number is reported later.
    return singles if index is None else singles[max(0, index) : index + 1]


def _check_files(manifest: Manifest) -> None:
    model = manifest.model
    try:
        if model.weights and _is_here(manifest, model.weights):
            _check_weights(model.name, manifest.path(model.weights))
        if model.inference_model and _is_here(manifest, model.inference_model):
            # Importing the stages takes 0.2 s, which other manifests do not need.
            from job.engine.inference.pir_file import program_file
            from job.engine.inference.ready_detector import check_ready_detector
            from job.engine.inference.ready_model import check_ready_model
            from job.stages.network import check_inference_model, inference_model_prefix
            from job.stages.task import task_of

            _check_saved_by_paddle(manifest.path(model.inference_model))
            check_inference_model(manifest)
            prefix = inference_model_prefix(manifest.path(model.inference_model))
            if manifest.task != "classification":
                heads = task_of(manifest).heads
                check_ready_detector(program_file(prefix), heads, model.classes)
            program = prefix.with_name(f"{prefix.name}.pdmodel")
            classes = model.classes if manifest.task == "classification" else None
            check_ready_model(program, classes, model.input_shape)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or 'the model'}: {error.strerror or error}",
            "Check /model/weights and /model/inference_model.",
        ) from error


def _check_weights(network: str | None, path: Path) -> None:
    """Read a file of weights, so that no stage rejects it later because of its format."""
    from job.engine.weights.match import check_kind, read_weights
    from job.engine.weights.torchvision_names import difference

    kind = check_kind(path)
    if kind in (TORCH, SAFETENSORS) and network is None:
        raise DataError(
            f"weights {path}: found {kind}, which only networks of /model/name accept",
            "Save the weights of the network with paddle.save(network.state_dict(), path).",
        )
    text = difference(network, read_weights(path, None).arrays)
    if text:
        raise DataError(
            f"weights {path}: found torchvision's {network}, which differs from Paddle's: {text}",
            "Use Paddle's weights (/model/pretrained), or build torchvision's network in Paddle, "
            "and set /model/callable.",
        )


def _check_saved_by_paddle(path: Path) -> None:
    """Reject models of other tools, and of Paddle 1: a file, or the only models in a folder.

    Raises:
        DataError: the message names the kind of the file.
        OSError: the file cannot be read.
    """
    _check_not_of_paddle_1(path)
    if path.is_dir():
        ours = any(file.suffix in (".pdmodel", ".json") for file in path.iterdir())
        files = [] if ours else [f for f in sorted(path.iterdir()) if f.suffix in _OTHER_SUFFIXES]
    else:
        files = [path] if path.is_file() else []
    for file in files:
        kind = model_kind_of(file)
        if kind in (ONNX, TORCH, TORCH_LEGACY, SAFETENSORS):
            raise DataError(
                f"/model/inference_model {file}: found {kind}, expected a model that Paddle saved "
                "(.pdmodel or .json, with .pdiparams)",
                "For a network of /model/name, save the state dict in PyTorch and set "
                "/model/weights. Export any other network from Paddle: paddle.jit.save(network, "
                "path, input_spec=[paddle.static.InputSpec([None, 3, 224, 224])]).",
            )


def _check_not_of_paddle_1(path: Path) -> None:
    """Reject a model whose program is the file ``__model__``.

    Raises:
        DataError: the hint explains the conversion.
    """
    old = path / _PADDLE_1 if path.is_dir() else path
    if old.name != _PADDLE_1 or not old.is_file() or [*old.parent.glob("*.pdmodel")]:
        return
    raise DataError(
        f"/model/inference_model {old}: found a program in the format of Paddle 1, expected "
        ".pdmodel and .pdiparams",
        f"If all weights are in one file, such as __params__, copy {_PADDLE_1} to model.pdmodel "
        "and the file of weights to model.pdiparams. Otherwise load the model with Paddle 2 "
        "(paddle.fluid.io.load_inference_model), and export it again with "
        "paddle.static.save_inference_model.",
    )


def _is_here(manifest: Manifest, text: str) -> bool:
    uri = manifest.uri(text)
    return uri is None or uri in manifest.localized
