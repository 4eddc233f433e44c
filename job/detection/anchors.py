"""Fit anchors to the boxes of a data set, as for YOLO.

k-means over widths and heights, in which the distance of a box and an anchor is 1 - IoU of both
with the same centre (Redmon and Farhadi, YOLO9000, 2017, section 2).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from job.detection.annotations import Annotations, Float64s
from job.detection.boxes import Size, not_empty
from job.errors import DataError

_MOST_ROUNDS = 300
_STARTS = 5
# Larger data sets do not change the anchors by a pixel, but take minutes.
_MOST_SIZES = 50_000


def scaled_sizes(images: Iterable[tuple[Annotations, Size]], size: Size) -> Float64s:
    """Return width and height of all boxes in pixels of the network's input, ``[n, 2]``.

    Each image is resized to the input, which can change its aspect ratio. Crowds and boxes outside
    their image are left out.

    Args:
        images: objects, and height and width of each image.
        size: height and width of the network's input.
    """
    found = [np.zeros((0, 2))]
    for objects, (height, width) in images:
        clipped = objects.take(~objects.crowd).clipped((height, width)).boxes
        sides = clipped[not_empty(clipped)]
        sides = sides[:, 2:] - sides[:, :2]
        found.append(sides * np.array([size[1] / width, size[0] / height]))
    return np.concatenate(found)


def fit(sizes: npt.ArrayLike, count: int, seed: int = 0) -> Float64s:
    """Return the anchors that fit best, ``[count, 2]`` width and height, by ascending area.

    Several starts are made, and the anchors with the highest ``mean_iou`` are returned.

    Args:
        sizes: width and height of each box, ``[n, 2]``, greater than 0.
        count: number of anchors, at least 1.
        seed: random seed of the starts.

    Raises:
        DataError: there are fewer different sizes than anchors.
    """
    array = np.asarray(sizes, np.float64).reshape(-1, 2)
    rng = np.random.default_rng(seed)
    different = len(np.unique(array, axis=0))
    if different < count:
        raise DataError(
            f"{count} anchors need boxes of at least {count} different sizes, found {different}",
            "Lower --count, or add training images.",
        )
    if len(array) > _MOST_SIZES:
        array = array[np.sort(rng.choice(len(array), _MOST_SIZES, replace=False))]
    tried = [_converged(array, _start(array, count, rng)) for _ in range(_STARTS)]
    best = max(tried, key=lambda anchors: mean_iou(array, anchors))
    ordered: Float64s = best[np.lexsort((best[:, 0], best.prod(axis=1)))]
    return ordered


def grouped(anchors: Float64s, heads: int) -> tuple[Float64s, ...]:
    """Divide anchors among the heads of a network, the smallest anchors to the first head.

    Args:
        anchors: ``[count, 2]``, by ascending area.
        heads: number of heads, by ascending stride (8, 16, 32).

    Returns:
        ``[count / heads, 2]`` for each head.

    Raises:
        ValueError: the heads would get different numbers of anchors.
    """
    if heads < 1 or len(anchors) % heads:
        raise ValueError(f"{len(anchors)} anchors cannot be divided among {heads} heads")
    return tuple(np.split(anchors, heads))


def mean_iou(sizes: npt.ArrayLike, anchors: npt.ArrayLike) -> float:
    """Return the mean over boxes of the IoU with the best anchor, 0 to 1.

    Args:
        sizes: width and height of each box, ``[n, 2]``, n >= 1.
        anchors: ``[count, 2]``.
    """
    return float(_iou(np.asarray(sizes), np.asarray(anchors)).max(axis=1).mean())


def shares(sizes: npt.ArrayLike, heads: Sequence[npt.ArrayLike]) -> tuple[float, ...]:
    """Return for each head the share of the boxes that belong to it, 0 to 1.

    A box belongs to the head that has its best anchor, as in ``yolo_loss``.

    Args:
        sizes: width and height of each box, ``[n, 2]``, n >= 1.
        heads: the anchors of each head, ``[m, 2]``.
    """
    grouped_anchors = [np.asarray(head, np.float64).reshape(-1, 2) for head in heads]
    best = _iou(np.asarray(sizes), np.concatenate(grouped_anchors)).argmax(axis=1)
    owners = np.repeat(np.arange(len(heads)), [len(head) for head in grouped_anchors])
    counts = np.bincount(owners[best], minlength=len(heads))
    return tuple(float(count) / len(best) for count in counts)


def _iou(sizes: Float64s, anchors: Float64s) -> Float64s:
    """Return the IoU of boxes and anchors with the same centre, ``[n, count]``."""
    common = np.minimum(sizes[:, None, 0], anchors[None, :, 0])
    common = common * np.minimum(sizes[:, None, 1], anchors[None, :, 1])
    union = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None, :] - common
    result: Float64s = common / union
    return result


def _start(sizes: Float64s, count: int, rng: np.random.Generator) -> Float64s:
    """Return different sizes that are far from each other (k-means++)."""
    chosen: Float64s = sizes[rng.integers(len(sizes))][None, :]
    while len(chosen) < count:
        distance = (1 - _iou(sizes, chosen).max(axis=1)) ** 2
        # The IoU of equal sizes can be slightly less than 1.
        distance[(sizes[:, None] == chosen[None, :]).all(axis=2).any(axis=1)] = 0
        place = rng.choice(len(sizes), p=distance / distance.sum())
        chosen = np.concatenate([chosen, sizes[place][None, :]])
    return chosen


def _converged(sizes: Float64s, anchors: Float64s) -> Float64s:
    """Return the anchors after k-means; an anchor without boxes stays where it is."""
    owner = np.full(len(sizes), -1)
    for _ in range(_MOST_ROUNDS):
        nearest = _iou(sizes, anchors).argmax(axis=1)
        if np.array_equal(nearest, owner):
            break
        owner = nearest
        counts = np.bincount(owner, minlength=len(anchors))
        sums = np.stack(
            [np.bincount(owner, sizes[:, side], minlength=len(anchors)) for side in (0, 1)], axis=1
        )
        anchors = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], anchors)
    return anchors
