"""The record and the errors of a conversion to another inference engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from job.errors import DataError, QuantizationError


class Conversion(TypedDict):
    """A record of what ``convert`` of an engine wrote.

    Attributes:
        quantizers: number of quantized activations.
        unsigned: number of activations with unsigned steps.
        int8_weights: number of int8 weights.
        bytes: model size.
    """

    quantizers: int
    unsigned: int
    int8_weights: int
    bytes: int


def rejected(what: str, reason: str, engine: str) -> QuantizationError:
    """Return the error of a library that cannot process a model.

    Args:
        what: library and action, such as ``OpenVINO cannot read``.
        reason: the library's message.
        engine: name of the engine in ``/benchmark/engines``.
    """
    return QuantizationError(
        f"{what} the model: {reason}", f"Remove {engine} from /benchmark/engines."
    )


def check_files(folder: Path, names: Sequence[str], stage: str) -> None:
    """Check that a converted model is complete.

    Raises:
        DataError: a file is missing.
    """
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing", f"Run again with --from {stage}.")
