"""Orders for cutting a data set so that each piece holds each class in its proportion."""

import numpy as np

from job.data.arrays import Ints
from job.data.transforms import generator

SPLIT_SEED = 0


def spread(labels: Ints, indices: Ints, stream: int) -> Ints:
    """Put images in an order whose every stretch holds each class in its proportion.

    Each class is shuffled and laid out evenly over the interval 0 to 1, shifted at random; the
    images are then taken in the order of their place.

    Args:
        labels: int64, of all images.
        indices: int64, the images to order.
        stream: keeps orders for different purposes independent.

    Returns:
        int64, ``indices`` in their new order.
    """
    rng = generator(SPLIT_SEED, stream)
    shuffled = rng.permutation(indices)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(by_class)) - np.repeat(starts, counts)
    places = (rank + np.repeat(rng.random(len(counts)), counts)) / np.repeat(counts, counts)
    return by_class[np.argsort(places, kind="stable")]
