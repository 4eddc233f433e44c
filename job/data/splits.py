"""The splits of a data set: training, calibration, selection of the best weights, test.

If the manifest does not give a split, the split is taken from another split, stratified by class.
The result is the same in each run. Test, selection and training never share an image. Calibration
images are training images. Without a training split, they are images that are in no other split.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.data.archive_reading import Progress
from job.data.listing import real_paths
from job.data.opening import Given, Opener
from job.data.s3.images import Remote
from job.data.sources import SYNTHETIC_SEED, ImageFiles, PackedImages, Source, synthetic
from job.data.transforms import Ints, generator
from job.errors import DataError, UsageError
from job.manifest.spec import DataSpec
from job.text_format import plural

SPLIT_SEED = 0
_CUT_STREAM = 2
_CALIBRATION_STREAM = 3
# Without a training split, calibration takes at most this share of another split.
_BORROWED_SHARE = 0.25
# Random images are only used to measure speed, so their number does not matter.
_SYNTHETIC_IMAGES = 16


@dataclass(frozen=True, eq=False)
class Part:
    """One split.

    Attributes:
        source: the images.
        indices: int64, ascending, numbers of the split's images in the source; may be empty for
            ``train``.
        how: how the split was created, for the report.
    """

    source: Source
    indices: Ints
    how: str

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Splits:
    """All splits; ``train`` is empty if the manifest gives no training images."""

    train: Part
    calibration: Part
    selection: Part
    test: Part


def split(
    spec: DataSpec,
    classes: int,
    input_shape: tuple[int, int, int],
    resolve: Callable[[str], Path],
    cache: Path,
    *,
    remote: Remote | None = None,
    progress: Progress | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Splits:
    """Open the data set and divide it into splits.

    Args:
        spec: the ``data`` section of the manifest.
        classes: the number of classes; every label is less.
        input_shape: channels, height, width of the model's input.
        resolve: returns the absolute path of a path in the manifest.
        cache: folder for an unpacked archive.
        remote: the data set in S3; None if it is on this machine.
        progress: called with the number of bytes read from an archive and its size.
        class_names: names of the classes of objects; None: the names in the data set.

    Raises:
        DataError: a file is missing or malformed, a split is too small to be divided, or an image
            is in two splits.
        UsageError: the manifest gives neither a training nor a test split.
    """
    if spec.format == "synthetic":
        return _synthetic(spec, classes, input_shape)
    opener = Opener(spec, classes, input_shape, resolve, cache, remote, progress, class_names)
    given = opener.given()
    _check_apart(given)
    if "train" in given:
        return _with_training(spec, given)
    if "val" in given:
        return _without_training(spec, given)
    raise UsageError(
        "/data: expected a training or a test split", "Set one of the keys train_... or val_..."
    )


def _synthetic(spec: DataSpec, classes: int, input_shape: tuple[int, int, int]) -> Splits:
    counts = (spec.calibration_images, _SYNTHETIC_IMAGES, _SYNTHETIC_IMAGES)
    source = synthetic(sum(counts), classes, input_shape)
    pieces = np.split(np.arange(len(source)), np.cumsum(counts)[:-1])
    how = f"synthetic: random images, seed {SYNTHETIC_SEED}"
    empty = Part(source, np.empty(0, np.int64), "synthetic: none, because there is no training")
    return Splits(empty, *(Part(source, piece, how) for piece in pieces))


def _check_apart(given: Mapping[str, Given]) -> None:
    seen: dict[Hashable, str] = {}
    for split_given in given.values():
        source = split_given.source
        for name, identity in _identities(source):
            if identity in seen:
                twice = f"in data.{seen[identity]} and"
                if seen[identity] == split_given.key:
                    twice = "twice in"
                raise DataError(
                    f"{name} of {source.where} is {twice} data.{split_given.key}",
                    "Name each image once, because accuracy on training images does not apply to "
                    "new images. A link is the same image as its target.",
                )
            seen[identity] = split_given.key


def _identities(source: Source) -> Iterator[tuple[str, Hashable]]:
    """Yield the name and the identity of each file; all names of a file have one identity."""
    if isinstance(source, PackedImages):
        status = source.path.stat()
        yield source.path.name, (status.st_dev, status.st_ino)
    elif isinstance(source, ImageFiles):
        yield from zip(source.names, real_paths(source.folder, source.names), strict=True)
    else:
        yield from ((name, name) for name in source.names)


def _with_training(spec: DataSpec, given: Mapping[str, Given]) -> Splits:
    train = given["train"]
    order = spread(train.source.labels, np.arange(len(train.source)), _CUT_STREAM)
    taken = 0
    cut: dict[str, Part] = {}
    fractions = {"val": spec.val_fraction, "selection": spec.selection_fraction}
    if not spec.train_labels:
        cut |= _labelled(spec, given)
    for name, fraction in fractions.items():
        if name in cut:
            continue
        if name in given:
            cut[name] = _whole(given[name])
            continue
        count = max(1, round(fraction * len(order)))
        cut[name] = Part(
            train.source,
            np.sort(order[taken : taken + count]),
            f"{_percent(fraction)} of {train.key}, {_drawn(train.source)}",
        )
        taken += count
    if taken >= len(order):
        raise DataError(
            f"{train.source.where}: data.{train.key} has only {plural(len(order), 'image')}; the "
            f"other splits take {taken}, so none remain for training",
            "Add images, or lower data.val_fraction and data.selection_fraction.",
        )
    rest = np.sort(order[taken:])
    how = f"all of {train.named}" if taken == 0 else _REST.format(train.named)
    training = Part(train.source, rest, how)
    return Splits(training, _calibration(training, spec), cut["selection"], cut["val"])


def _labelled(spec: DataSpec, given: Mapping[str, Given]) -> dict[str, Part]:
    """Return test and selection split beside training images without labels."""
    val = given["val"]
    if "selection" in given:
        return {"val": _whole(val), "selection": _whole(given["selection"])}
    order = spread(val.source.labels, np.arange(len(val.source)), _CUT_STREAM)
    selection, test = _selected(spec, val, order)
    _check_enough(val, selection, test)
    return {"val": test, "selection": selection}


def _selected(spec: DataSpec, val: Given, order: Ints) -> tuple[Part, Part]:
    """Take the selection split from the test images in ``order``."""
    count = max(1, round(spec.selection_fraction * len(val.source)))
    how = f"{_percent(spec.selection_fraction)} of {val.key}, {_drawn(val.source)}"
    selection = Part(val.source, np.sort(order[:count]), how)
    return selection, Part(val.source, np.sort(order[count:]), _REST.format(val.named))


def _calibration(training: Part, spec: DataSpec) -> Part:
    labels = training.source.labels
    order = spread(labels, training.indices, _CALIBRATION_STREAM)
    chosen = np.sort(order[: spec.calibration_images])
    how = f"{len(chosen):,} of the training images, {_drawn(training.source)}"
    if len(chosen) < spec.calibration_images:
        how = f"all {len(chosen):,} training images ({spec.calibration_images:,} were requested)"
    return Part(training.source, chosen, how)


def _without_training(spec: DataSpec, given: Mapping[str, Given]) -> Splits:
    val = given["val"]
    lender = given.get("selection", val)
    order = spread(lender.source.labels, np.arange(len(lender.source)), _CUT_STREAM)
    calibration_count = max(1, min(spec.calibration_images, int(_BORROWED_SHARE * len(order))))
    how = f"{calibration_count:,} images of {lender.key}, {_drawn(lender.source)}"
    if calibration_count < spec.calibration_images:
        how += f" ({spec.calibration_images:,} were requested; the limit is a quarter of the split)"
    calibration = Part(lender.source, np.sort(order[:calibration_count]), how)
    rest = order[calibration_count:]
    if "selection" in given:
        selection = Part(lender.source, np.sort(rest), _REST.format(lender.named))
        test = _whole(val)
    else:
        selection, test = _selected(spec, val, rest)
    _check_enough(lender, selection, test)
    empty = Part(val.source, np.empty(0, np.int64), "none given")
    return Splits(empty, calibration, selection, test)


def _check_enough(lender: Given, selection: Part, test: Part) -> None:
    if not len(selection) or not len(test):
        raise DataError(
            f"{lender.source.where}: data.{lender.key} has only "
            f"{plural(len(lender.source), 'image')}, too few for several splits",
            "Set data.train_... and data.selection_... as well, or add images.",
        )


_REST = "the rest of {}, without the other splits"


def _drawn(source: Source) -> str:
    """Return how images were chosen; images with objects all have label 0."""
    by_class = "stratified by class" if source.labels.any() else "chosen at random"
    return f"{by_class}, seed {SPLIT_SEED}"


def _whole(given: Given) -> Part:
    return Part(given.source, np.arange(len(given.source)), f"all of {given.named}")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g}%"


def spread(labels: Ints, indices: Ints, stream: int) -> Ints:
    """Order images so that every section of the order has each class in proportion.

    Each class is shuffled and spread evenly over the interval 0 to 1, with a random offset. The
    images are then sorted by their position in the interval.

    Args:
        labels: int64, the labels of all images.
        indices: int64, the images to order.
        stream: makes orders for different purposes independent.

    Returns:
        int64, ``indices`` in the new order.
    """
    rng = generator(SPLIT_SEED, stream)
    shuffled = rng.permutation(indices)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(by_class)) - np.repeat(starts, counts)
    places = (rank + np.repeat(rng.random(len(counts)), counts)) / np.repeat(counts, counts)
    return by_class[np.argsort(places, kind="stable")]
