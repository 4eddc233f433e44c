"""Reads deploy.json, and the folder of the FP32 model beside a deployed model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import DataError, OutputError
from job.report.deploy import NAME
from job.report.render.schema_check import validate_deploy

FP32 = "fp32"
_HINT = "Give the folder of a model of a finished run, such as runs/digits/int8."


def folder_of(model: Path) -> Path:
    """Return the folder of a model, given as a folder, or as a file with or without suffix."""
    beside = model.parent.iterdir() if model.parent.is_dir() else ()
    named = any(model in (file, file.with_suffix("")) and file.is_file() for file in beside)
    return model.parent if named and not model.is_dir() else model


def read_deploy(folder: Path) -> Mapping[str, Any]:
    """Return the deployment record of a model's folder.

    Raises:
        DataError: the record or a file that it names is missing, or the record is invalid.
    """
    path = folder / NAME
    try:
        record: Mapping[str, Any] = json.loads(path.read_bytes(), parse_constant=_refused)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", _HINT) from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}", "Run the job again with --from report.") \
            from error  # fmt: skip
    try:
        validate_deploy(record)
    except OutputError as error:
        raise DataError(f"{folder}/{error.message}", error.hint) from error
    for file in record["model"]["files"]:
        if not (folder / file).is_file():
            raise DataError(f"{folder / file} is missing, but {path} names it", _HINT)
    return record


def _refused(text: str) -> None:
    """Reject NaN and infinity, which JSON does not have.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"found {text}")


def fp32_beside(folder: Path) -> Path:
    """Return the folder of the FP32 model of the run that wrote ``folder``."""
    return folder.resolve().parent / FP32
