"""Counts what the stages of a run have to do: images of each split, steps of each training."""

import posixpath
from dataclasses import dataclass
from pathlib import Path

from job.data.archive_reading import is_archive, is_plain_tar
from job.errors import DataError
from job.manifest import Manifest
from job.manifest.spec import BUILT_IN, TrainSpec
from job.stages.dataset import open_splits

# Images of scikit-learn's digits. Loading them would take a second.
_DIGITS = 1797
# Only an archive is unpacked next to a stage's folder.
_UNUSED = Path("unused/out")
# Their images are built in, or in files that the run downloads before it plans.
_WITHOUT_FOLDER = (*BUILT_IN, "packed")


@dataclass(frozen=True)
class Images:
    """Numbers of images of the splits."""

    train: int
    calibration: int
    selection: int
    test: int


@dataclass(frozen=True)
class Training:
    """The length of a training.

    Attributes:
        steps: number of optimizer steps.
        batch_size: images of a step.
        evaluations: number of evaluations on the selection split.
    """

    steps: int
    batch_size: int
    evaluations: int


def uncounted(manifest: Manifest) -> str:
    """Return why images can be counted only by a run; empty if they can be counted now."""
    data = manifest.data
    if data.format in _WITHOUT_FOLDER:
        return ""
    root = posixpath.basename(data.root or "")
    uri = manifest.uri(data.root or ".")
    if uri is not None and uri not in manifest.localized:
        return f"{uri} is not listed yet"
    if is_archive(root) and not (uri is not None and is_plain_tar(root)):
        return f"the archive {root} is not unpacked yet"
    return ""


def count_images(manifest: Manifest) -> Images:
    """Count the images of the splits, without reading an image.

    Raises:
        DataError: the data set is missing or malformed; or see :func:`uncounted`.
    """
    data = manifest.data
    if data.format == "digits":
        selection, test = (
            max(1, round(share * _DIGITS)) for share in (data.selection_fraction, data.val_fraction)
        )
        train = _DIGITS - selection - test
        return Images(train, min(train, data.calibration_images), selection, test)
    if reason := uncounted(manifest):
        raise DataError(reason)
    splits = open_splits(manifest, _UNUSED)
    parts = (splits.train, splits.calibration, splits.selection, splits.test)
    return Images(*(len(part) for part in parts))


def training_of(spec: TrainSpec, images: Images) -> Training:
    """Return the length of a training on the training split."""
    batch_size = min(spec.batch_size, max(1, images.train))
    per_epoch = max(1, images.train // batch_size)
    steps = spec.epochs * per_epoch if spec.max_iters is None else spec.max_iters
    every = max(1, per_epoch // spec.evaluations_per_epoch)
    return Training(steps, batch_size, -(-steps // every))
