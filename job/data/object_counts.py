"""Counts of the objects of a data set, for its record."""

from typing import Any

import numpy as np

from job.data.objects import LabelledSource, ObjectTable
from job.data.sources import Source
from job.data.splits import Part, Splits
from job.data.transforms import Ints
from job.detection.ragged import COUNTS
from job.errors import DataError
from job.text_format import plural


def table_of(source: Source) -> ObjectTable | None:
    """Return the objects of a source; None if they are known only when an image is read."""
    table = getattr(source, "objects", None)
    return table if isinstance(table, ObjectTable) else None


def class_labels(source: Source) -> Ints | None:
    """Return the class of each labelled image or object, int64 ``[n]``; None if unknown."""
    if not isinstance(source, LabelledSource):
        return source.labels
    table = table_of(source)
    return None if table is None else table.arrays["classes"]


def object_counts(splits: Splits) -> dict[str, Any] | None:
    """Return the number of objects of each split; None if no split has known objects.

    Returns:
        ``splits``: for each split the number of objects and of images without objects.
        ``empty_boxes``: number of objects that were dropped, because their box has no width or no
        height.
    """
    parts = {"train": splits.train, "selection": splits.selection, "test": splits.test}
    tables = {name: table_of(part.source) for name, part in parts.items()}
    known = {id(table): table for table in tables.values() if table is not None}
    if not known:
        return None
    return {
        "splits": {
            name: _counts(part, table)
            for (name, part), table in zip(parts.items(), tables.values(), strict=True)
            if table is not None
        },
        "empty_boxes": sum(table.empty for table in known.values()),
    }


def check_countable(part: Part, name: str) -> None:
    """Check that a split has an object that counts: neither difficult nor a crowd.

    Raises:
        DataError: mAP is not defined on such a split, and training on it learns nothing.
    """
    table = table_of(part.source)
    if table is None:
        return
    ignored = table.arrays["difficult"] | table.arrays["crowd"]
    owners = np.repeat(np.arange(len(table)), table.arrays[COUNTS])
    chosen = np.isin(owners, part.indices)
    if np.any(chosen & ~ignored):
        return
    found = "has no object"
    if count := int(chosen.sum()):
        found = f"has {plural(count, 'object')}, but each is difficult or a crowd"
    raise DataError(
        f"{part.source.where}: the {name} split ({part.how}) {found}",
        f"Add images with objects to the {name} split, or choose another split in /data.",
    )


def _counts(part: Part, table: ObjectTable) -> dict[str, int]:
    counts = table.arrays[COUNTS][part.indices]
    return {
        "objects": int(counts.sum()),
        "images_without_objects": int(np.count_nonzero(counts == 0)),
    }
