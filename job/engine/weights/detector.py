"""Matches the weights of PaddleDetection, or of a backbone alone, to a detector."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from job.engine.weights.match import match
from job.errors import DataError

BACKBONE, HEAD = "backbone.", "yolo_head."


@dataclass(frozen=True)
class DetectorWeights:
    """Weights of a file that a detector uses.

    Attributes:
        arrays: the weights by the names of the detector.
        missing: weights of the detector that keep their initial values.
        unused: weights of the file that the detector does not have.
    """

    arrays: Mapping[str, NDArray[Any]]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def match_detector(
    given: Mapping[str, NDArray[Any]],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    source: str,
    reset_heads: bool,
) -> DetectorWeights:
    """Select the arrays that a detector needs and check their shapes.

    A file with backbone weights only lacks the prefix ``backbone.``, and often has a classifier.

    Args:
        given: arrays by the names of the file.
        wanted: expected shape of each weight of the detector.
        source: file of the weights, for messages.
        reset_heads: omit heads whose shape differs, because they have other classes.

    Raises:
        DataError: a weight is missing or has another shape.
    """
    if any(name.startswith(BACKBONE) for name in given):
        needed, found = dict(wanted), dict(given)
        if reset_heads:
            needed = {
                name: shape
                for name, shape in wanted.items()
                if not _is_other_head(name, shape, given)
            }
    else:
        needed = {name: shape for name, shape in wanted.items() if name.startswith(BACKBONE)}
        found = {f"{BACKBONE}{name}": array for name, array in given.items()}
        if needed.keys().isdisjoint(found):
            raise DataError(
                f"weights {source}: no weight belongs to the network; the file holds "
                f"{', '.join(list(given)[:3])}, ...; expected names such as "
                f"{', '.join(list(wanted)[:3])}",
                "Set /model/weights to weights of PaddleDetection's yolov3_mobilenet_v1, or of its "
                "backbone MobileNetV1.",
            )
    arrays = match(found, needed, source=source, reset_classifier=False)
    return DetectorWeights(
        arrays,
        tuple(name for name in wanted if name not in arrays),
        tuple(own for own, name in zip(given, found, strict=True) if name not in wanted),
    )


def _is_other_head(name: str, shape: tuple[int, ...], given: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether a weight belongs to a head, and the file's weight has another shape."""
    return name.startswith(HEAD) and name in given and tuple(given[name].shape) != tuple(shape)
