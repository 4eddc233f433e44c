"""Reads the input shape and the preprocessing of an exported model, for ``job init``."""

from pathlib import Path
from typing import Any

from job.errors import DataError


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
    """Return whether a fully connected layer of a file of weights has this number of classes.

    Also true for a file that does not exist yet.

    Raises:
        DataError: the file cannot be read as weights.
    """
    from job.engine.weights.match import read_weights

    if not weights.exists():
        return True
    arrays = read_weights(weights, None).arrays.values()
    return any(array.ndim == 2 and classes in array.shape for array in arrays)


def preprocessing_of(path: Path) -> dict[str, Any]:
    """Return mean, std and resize_short from the ``inference.yml`` of PaddleClas or PaddleX.

    Raises:
        DataError: the file is not YAML.
    """
    import yaml

    file = (path if path.is_dir() else path.parent) / "inference.yml"
    if not file.is_file():
        return {}
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as YAML: {error}", "Correct the file.") from error
    section = document.get("PreProcess") if isinstance(document, dict) else None
    ops = section.get("transform_ops") if isinstance(section, dict) else None
    found: dict[str, Any] = {}
    for op in ops if isinstance(ops, list) else ():
        match op:
            case {"NormalizeImage": {"mean": list() as mean, "std": list() as std}}:
                found |= {"mean": mean, "std": std}
            case {"ResizeImage": {"resize_short": int() as short}}:
                found["resize_short"] = short
            case {"ResizeImage": {"size": _}}:
                found["resize_short"] = None
    return found
