"""Reads the input shape and the preprocessing of an exported model, for ``job init``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.engine.inference.pir_file import SUFFIX as PIR_SUFFIX
from job.errors import DataError, UsageError
from job.text_format import shortened
from job.uri import is_uri


def check_files(inference_model: str | None, weights: str | None) -> None:
    """Check that the model's files on this machine exist.

    Raises:
        DataError: a file is missing.
    """
    from job.stages.network import inference_model_prefix

    if weights and not is_uri(weights) and not Path(weights).is_file():
        raise DataError(f"--weights {weights}: no such file", "Correct the path.")
    if inference_model and not is_uri(inference_model):
        prefix = inference_model_prefix(Path(inference_model))
        program = any(Path(f"{prefix}{suffix}").is_file() for suffix in (".pdmodel", PIR_SUFFIX))
        if not program or not Path(f"{prefix}.pdiparams").is_file():
            raise DataError(
                f"--inference-model {inference_model}: found no saved model",
                "Give a folder with a .pdmodel or .json file and its .pdiparams file, as "
                "paddle.jit.save writes them.",
            )


def exported_shape(path: Path) -> list[int] | None:
    """Return [channels, height, width] of a ``.pdmodel``; None if it is not fixed or not stored.

    Raises:
        DataError: the file is no image classifier.
    """
    from job.engine.inference.ready_model import image_shape
    from job.stages.network import inference_model_prefix

    program = Path(f"{inference_model_prefix(path)}.pdmodel")
    if not program.is_file():
        return None
    shape = image_shape(program)
    return shape if all(size > 0 for size in shape) else None


def has_classes(weights: Path, classes: int) -> bool:
    """Return whether the last fully connected layer of a file of weights has this many outputs.

    Also true for a file in S3, which is not read.

    Raises:
        DataError: the file cannot be read as weights.
    """
    from job.engine.weights.match import read_weights

    if not weights.exists():
        return True
    arrays = read_weights(weights, None).arrays
    layers = [name for name, array in arrays.items() if array.ndim == 2]
    if not layers:
        return False
    # PyTorch stores [outputs, inputs] and Paddle [inputs, outputs]. The bias has the outputs only.
    bias = arrays.get(f"{layers[-1].rpartition('.')[0]}.bias")
    return classes in (arrays[layers[-1]] if bias is None else bias).shape


def preprocessing_of(path: Path) -> dict[str, Any]:
    """Return mean, std and resize_short from the ``inference.yml`` of PaddleClas or PaddleX.

    Raises:
        DataError: the file is not YAML.
    """
    found: dict[str, Any] = {}
    for op in _transform_ops(path):
        match op:
            case {"NormalizeImage": {"mean": list() as mean, "std": list() as std}}:
                found |= {"mean": mean, "std": std}
            case {"ResizeImage": {"resize_short": int() as short}}:
                found["resize_short"] = short
            case {"ResizeImage": {"size": _}}:
                found["resize_short"] = None
    return found


def preprocessed_shape(path: Path) -> list[int] | None:
    """Return [3, height, width] after crop or resize in the ``inference.yml``; None without both.

    Raises:
        DataError: the file is not YAML.
    """
    for op in reversed(_transform_ops(path)):
        match op:
            case {"CropImage": {"size": int() as side}} | {"ResizeImage": {"size": int() as side}}:
                return [3, side, side]
            case {"ResizeImage": {"size": [int() as width, int() as height]}}:
                # As in PaddleClas, which calls cv2.resize.
                return [3, height, width]
    return None


def assumed_keys(path: Path) -> list[str]:
    """Return the keys of the manifest whose values an exported model does not contain.

    Raises:
        DataError: the file is no image classifier, or its ``inference.yml`` is not YAML.
    """
    known = preprocessing_of(path)
    shape = exported_shape(path) or preprocessed_shape(path)
    return [
        *([] if shape else ["model.input_shape"]),
        *([] if "mean" in known else ["data.mean", "data.std"]),
        *([] if "resize_short" in known else ["data.resize_short"]),
    ]


def check_order(path: Path, folders: Sequence[str]) -> None:
    """Check that the classes of an ``inference.yml`` have the order of the class folders.

    Args:
        path: the exported model.
        folders: the class folders in the order of their labels.

    Raises:
        UsageError: the classes have the same names in another order.
        DataError: the file is not YAML.
    """
    match _section(path, "PostProcess"):
        case {"Topk": {"label_list": list() as listed}}:
            names = [str(name) for name in listed]
        case _:
            return
    if names != list(folders) and sorted(names) == sorted(folders):
        raise UsageError(
            f"--inference-model {path}: its classes have the order {shortened(names)} "
            f"(inference.yml), but class folders are labelled in the order {shortened(folders)}",
            "Rename the class folders, so that they have the order of the model; or write the "
            "lists train_list.txt and val_list.txt with the labels of the model.",
        )


def _transform_ops(path: Path) -> list[Any]:
    ops = _section(path, "PreProcess").get("transform_ops")
    return ops if isinstance(ops, list) else []


def _section(path: Path, name: str) -> Mapping[str, Any]:
    """Return a section of the ``inference.yml`` beside an exported model; empty without it."""
    import yaml

    file = (path if path.is_dir() else path.parent) / "inference.yml"
    if not file.is_file():
        return {}
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as YAML: {error}", "Correct the file.") from error
    section = document.get(name) if isinstance(document, dict) else None
    return section if isinstance(section, dict) else {}
