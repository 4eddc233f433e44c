"""Splits, transforms and external files of the data set, shared by several stages."""

from collections.abc import Sequence
from pathlib import Path

from job.data import transforms
from job.data.labelled_transforms import AugmentObjects, ResizeObjects
from job.data.loader import Loader, Normalisation
from job.data.object_counts import check_countable
from job.data.objects import LabelledSource
from job.data.s3.images import remote_of
from job.data.sources import BadImage, Source
from job.data.splits import Part, Splits, split
from job.events import Events
from job.manifest import Manifest
from job.manifest.spec import BUILT_IN, DataSpec, TrainSpec, data_file, stands_alone
from job.storage.files import is_folder


def data_files(manifest: Manifest) -> Sequence[Path]:
    """Return the files and folders of the data set."""
    data = manifest.data
    if data.format in BUILT_IN:
        return ()
    if data.format == "packed":
        names = (data.train_file, data.selection_file, data.val_file)
        return tuple(manifest.path(data_file(data.root, name)) for name in names if name)
    root = manifest.path(data.root or ".")
    if data.format in ("imagenet_list", "voc", "coco"):
        lists = (data.train_list, data.selection_list, data.val_list)
        return (root, *(manifest.path(name) for name in lists if name and stands_alone(name)))
    if data.format in ("class_folders", "images") and is_folder(root):
        # Without the root, because the root can also contain the manifest and the output.
        names = (data.train_dir, data.selection_dir, data.val_dir)
        return tuple(root / name for name in names if name)
    return (root,)


def open_splits(manifest: Manifest, out: Path) -> Splits:
    """Open the data set's splits, which are equal at each call.

    Args:
        manifest: names the data set.
        out: the stage's folder. Archives are unpacked once for all stages, to ``.cache`` in the
            folder two levels above.
    """
    model = manifest.model
    cache = out.parent.parent / ".cache"
    return split(
        manifest.data,
        model.classes,
        model.input_shape,
        manifest.path,
        cache,
        remote=remote_of(manifest),
        class_names=manifest.detection.class_names,
    )


def training_part(manifest: Manifest, out: Path) -> Part:
    """Return the training split, which must have objects if the task is detection.

    Args:
        manifest: names the data set.
        out: see ``open_splits``.

    Raises:
        DataError: the training or the selection split has no object.
    """
    splits = open_splits(manifest, out)
    check_countable(splits.train, "training")
    # Training chooses its best weights by the selection split.
    check_countable(splits.selection, "selection")
    return splits.train


def normalisation(data: DataSpec) -> Normalisation:
    """Return the mean and standard deviation of a manifest."""
    return Normalisation(data.mean, data.std)


def evaluation_transform(manifest: Manifest, source: Source) -> transforms.Transform:
    """Return the transform of test, selection and calibration images."""
    _, height, width = manifest.model.input_shape
    if isinstance(source, LabelledSource):
        return ResizeObjects((height, width))
    return transforms.Evaluate((height, width), manifest.data.resize_short)


def training_transform(manifest: Manifest, source: Source) -> transforms.Transform:
    """Return the transform of training images."""
    _, height, width = manifest.model.input_shape
    if isinstance(source, LabelledSource):
        boxes = manifest.detection.augment
        # The batch is resized from here to one of the sizes.
        largest = max(training_sizes(manifest, source), default=None)
        return AugmentObjects(
            (height, width) if largest is None else (largest, largest),
            distort=boxes.distort,
            expand=boxes.expand,
            crop=boxes.crop,
            flip=boxes.flip,
        )
    spec = manifest.data.augment
    return transforms.Augment(
        transforms.Evaluate((height, width), manifest.data.resize_short),
        crop=spec.crop,
        scale=spec.scale,
        ratio=spec.ratio,
        padding=spec.padding,
        flip=spec.flip,
    )


def training_sizes(manifest: Manifest, source: Source) -> Sequence[int]:
    """Return the sides of the training images in pixels; empty: the size of the network's input."""
    sizes = manifest.detection.augment.sizes
    return sizes if sizes and isinstance(source, LabelledSource) else ()


def training_loader(
    manifest: Manifest, part: Part, train: TrainSpec, events: Events, bad: list[BadImage]
) -> Loader:
    """Return a loader of shuffled, augmented batches of the training split.

    Args:
        manifest: sets transforms and workers.
        part: the training split.
        train: sets batch size and random seed.
        events: receives a warning for each bad image.
        bad: receives each bad image.
    """

    def on_bad(image: BadImage) -> None:
        bad.append(image)
        events.message(f"bad image {image.path}: {image.reason}", "warning")

    return Loader(
        part.source,
        part.indices,
        training_transform(manifest, part.source),
        normalisation(manifest.data),
        batch_size=train.batch_size,
        seed=train.seed,
        shuffle=True,
        # A small last batch would give batch norm inaccurate statistics.
        drop_last=len(part) >= train.batch_size,
        replace_bad=True,
        workers=manifest.data.workers,
        max_bad_fraction=manifest.data.max_bad_fraction,
        on_bad=on_bad,
        sizes=training_sizes(manifest, part.source),
    )
