"""prepare: verifies the data, splits it and packs the evaluation images."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from job.data import packed, packed_objects
from job.data.copies import find_copies
from job.data.label_names import label_names
from job.data.loader import Loader
from job.data.object_counts import check_countable, class_labels, object_counts
from job.data.objects import LabelledSource
from job.data.opening import skipped_text
from job.data.sources import BadImage, SyntheticImages
from job.data.splits import Part, Splits
from job.detection.annotations import Annotations
from job.errors import DataError
from job.events import Events
from job.manifest import Manifest
from job.stages.data_notes import copies_text, empty_classes_text, objects_text
from job.stages.dataset import data_files, evaluation_transform, normalisation, open_splits
from job.stages.settings import settings_of
from job.stages.stage import CALIBRATION, SELECTION, TEST, Record, Stage, StageOutput

BATCH = 64


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:  # noqa: ARG001
    """Write test.bin, selection.bin and calibration.bin; the record describes the splits."""
    splits = open_splits(manifest, out)
    for text in skipped(splits):
        events.message(text)
    check_countable(splits.test, "test")
    about = contents(splits, manifest.model.classes)
    if empty := about["empty_classes"]:
        events.message(empty_classes_text(empty, about), "warning")
    if text := objects_text(about.get("objects")):
        events.message(text)
    bad: list[BadImage] = []
    counts = {"train": len(splits.train)}
    for name, part in packed_parts(splits):
        stem = Path(name).stem
        counts[stem] = int(pack(manifest, part, stem, out / name, events, bad)["count"])
        if events.stopping:
            return {}
    copied = copies(splits, events)
    if events.stopping:
        return {}
    for each in copied:
        events.message(copies_text(each), "warning")
    how = {
        "train": splits.train.how,
        "calibration": splits.calibration.how,
        "selection": splits.selection.how,
        "test": splits.test.how,
    }
    return {
        "format": manifest.data.format,
        **about,
        "splits": {name: {"images": counts[name], "how": how[name]} for name in how},
        "bad_images": [{"path": image.path, "reason": image.reason} for image in bad],
        "normalised": splits.test.source.normalised,
        "copies": copied,
    }


def contents(splits: Splits, classes: int) -> Record:
    """Return the classes and the objects of the splits, for the record."""
    objects = object_counts(splits)
    return {
        "classes": classes,
        "class_names": class_names(splits, classes),
        "empty_classes": empty_classes(splits, classes),
        **({} if objects is None else {"objects": objects}),
    }


def skipped(splits: Splits) -> list[str]:
    """Return a message for each source that has images in system folders."""
    texts = {
        f"{part.source.where}: {skipped_text(part.source)}"
        for part in (splits.train, splits.selection, splits.test)
        if getattr(part.source, "system_folders", None)
    }
    return sorted(texts)


def empty_classes(splits: Splits, classes: int) -> list[int]:
    """Return the classes without a training image.

    Without training images, return class 0 if it is the only class without a test image.
    """
    part = splits.train if len(splits.train) else splits.test
    labels = class_labels(part.source)
    if labels is None:
        return []
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0).tolist()
    return empty if len(splits.train) or empty == [0] else []


def class_names(splits: Splits, classes: int) -> list[str] | None:
    """Return the name of each class by label; None if only numbers are known."""
    names = getattr(splits.test.source, "class_names", ())
    if not names:
        # ImageNet's training list has a folder for each class, its test list usually has not.
        lists = {id(part.source): part.source for part in (splits.train, splits.test)}
        names = next(filter(None, (label_names([one], classes) for one in lists.values())), ())
    # A folder's name can contain bytes that are not UTF-8, which JSON cannot represent.
    return [name.encode(errors="backslashreplace").decode() for name in names] or None


def copies(splits: Splits, events: Events) -> list[Record]:
    """Return which splits share byte-identical images."""
    parts = {"train": splits.train, "selection": splits.selection, "test": splits.test}
    found: list[Record] = []
    for name, other in (("test", "train"), ("test", "selection"), ("selection", "train")):

        def proceed(done: int, total: int, searched: str = other) -> bool:
            events.progress(f"comparing with {searched}", done, total, "images")
            return not events.stopping

        if isinstance(parts[name].source, SyntheticImages) or not len(parts[other]):
            continue
        shared = find_copies(parts[name], parts[other], proceed)
        if shared.images:
            found.append(
                {
                    "split": name,
                    "other": other,
                    "images": shared.images,
                    "of": len(parts[name]),
                    "names": [list(pair) for pair in shared.names],
                }
            )
    return found


def packed_parts(splits: Splits) -> tuple[tuple[str, Part], ...]:
    """Return file name and split of each packed file."""
    return ((CALIBRATION, splits.calibration), (SELECTION, splits.selection), (TEST, splits.test))


def pack(
    manifest: Manifest, part: Part, name: str, path: Path, events: Events, bad: list[BadImage]
) -> Record:
    """Pack the readable images of a split.

    Args:
        manifest: sets transforms and workers.
        part: the split.
        name: name of the split, for progress and messages.
        path: the file to write.
        events: receives progress and a warning for each bad image.
        bad: receives each bad image.

    Returns:
        The content of the file's sidecar, see ``packed.write``. If the images have objects, they
        are beside the file, see ``packed_objects``.

    Raises:
        DataError: the split is empty, or too many images are bad.
    """
    if len(part) == 0:
        raise DataError(
            f"the {name} split has no images ({part.how})",
            "Add images, or raise selection_fraction or val_fraction in /data.",
        )

    def on_bad(image: BadImage) -> None:
        bad.append(image)
        events.message(f"bad image {image.path}: {image.reason}", "warning")

    objects: list[Annotations] = []
    loader = Loader(
        part.source,
        part.indices,
        evaluation_transform(manifest, part.source),
        normalisation(manifest.data),
        batch_size=BATCH,
        workers=manifest.data.workers if len(part) > BATCH else 0,
        max_bad_fraction=manifest.data.max_bad_fraction,
        on_bad=on_bad,
    )
    with contextlib.closing(loader):
        description = packed.write(
            path,
            counted(loader, len(part), name, events, objects),
            shape=manifest.model.input_shape,
            transform=transform_text(manifest, part),
        )
    if isinstance(part.source, LabelledSource):
        packed_objects.write(path, objects)
    return description


def transform_text(manifest: Manifest, part: Part) -> str:
    """Return a description of the preprocessing of the packed images, in one line."""
    if part.source.normalised:
        return f"none: images of {Path(part.source.where).name} are used unchanged"
    if isinstance(part.source, SyntheticImages):
        return "none: random numbers, for speed measurements only"
    short = manifest.data.resize_short
    resized = f"resize short side to {short}" if short else "resize to the input size"
    return f"{resized}, mean {list(manifest.data.mean)}, std {list(manifest.data.std)}"


def counted(
    loader: Loader, total: int, name: str, events: Events, objects: list[Annotations]
) -> Iterator[tuple[Any, Any]]:
    """Yield the loader's batches, report progress, and append the objects of each image."""
    done = 0
    for batch in loader.batches():
        objects += batch.objects or ()
        yield batch.images, batch.labels
        done += len(batch.labels)
        events.progress(name, done, total, "images")


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change the splits and the packed images."""
    return {
        "data": settings_of(manifest.data, "augment", "root"),
        "class_names": manifest.detection.class_names,
        "model": {
            "classes": manifest.model.classes,
            "input_shape": manifest.model.input_shape,
        },
    }


STAGE = Stage("prepare", "data", (), settings, data_files, run)
