"""Fits anchors to the training images of a data set."""

from dataclasses import dataclass

from job.data.object_counts import table_of
from job.data.objects import LabelledSource
from job.data.splits import Part
from job.detection import anchors
from job.detection.annotations import Annotations
from job.detection.boxes import Size
from job.errors import DataError

# Images that are read, if the objects are not known without the image.
_MOST_READ = 1000


@dataclass(frozen=True)
class FittedAnchors:
    """Anchors for the heads of a network.

    Attributes:
        heads: (width, height) of each anchor in pixels of the network's input, by ascending stride.
        boxes: number of boxes.
        mean_iou: mean IoU of each box with its best anchor, 0 to 1.
        shares: share of the boxes that belong to each head, 0 to 1.
    """

    heads: tuple[tuple[tuple[int, int], ...], ...]
    boxes: int
    mean_iou: float
    shares: tuple[float, ...]


def fitted_anchors(part: Part, size: Size, count: int, seed: int, heads: int) -> FittedAnchors:
    """Return the anchors that fit best, see ``job.detection.anchors``.

    Args:
        part: the training split.
        size: height and width of the network's input.
        count: number of anchors, a multiple of ``heads``.
        seed: random seed.
        heads: number of heads.

    Raises:
        DataError: the split has no objects, or too few different boxes.
    """
    sizes = anchors.scaled_sizes(_images(part), size)
    if not len(sizes):
        raise DataError(
            f"{part.source.where}: the training images have no objects", "Add annotations."
        )
    fitted = anchors.fit(sizes, count, seed).round().clip(1)
    by_head = anchors.grouped(fitted, heads)
    return FittedAnchors(
        heads=tuple(tuple((int(width), int(height)) for width, height in head) for head in by_head),
        boxes=len(sizes),
        mean_iou=anchors.mean_iou(sizes, fitted),
        shares=anchors.shares(sizes, by_head),
    )


def _images(part: Part) -> list[tuple[Annotations, Size]]:
    """Return the objects and the size of each training image."""
    source, table = part.source, table_of(part.source)
    if table is None:
        if not isinstance(source, LabelledSource):
            return []
        read = [source.read_labelled(int(index)) for index in part.indices[:_MOST_READ]]
        return [(objects, (image.shape[0], image.shape[1])) for image, objects in read]
    found = []
    for index in part.indices.tolist():
        height, width = map(int, table.sizes[index])
        if not height:
            height, width = source.read(index).shape[:2]
        found.append((table[index], (height, width)))
    return found
