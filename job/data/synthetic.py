"""Random images, to measure speed where no data is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from job.data.arrays import Image, Ints
from job.data.transforms import generator

SYNTHETIC_SEED = 0
_SYNTHETIC_STREAM = 4


@dataclass(frozen=True, eq=False)
class SyntheticImages:
    """Random images, drawn when they are read; the same ones each time.

    Attributes:
        shape: channels, height, width of every image.
        labels: int64 ``[n]``; they say nothing about the images.
    """

    shape: tuple[int, int, int]
    labels: Ints
    where: str = "synthetic"
    normalised: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """The images' channels."""
        return self.shape[0]

    @property
    def names(self) -> Sequence[str]:
        """``synthetic#number``."""
        return [f"{self.where}#{number}" for number in range(len(self))]

    def read(self, index: int) -> Image:
        """uint8 ``[height, width, channels]``, every value equally likely."""
        channels, height, width = self.shape
        drawn = generator(SYNTHETIC_SEED, _SYNTHETIC_STREAM, index)
        image: Image = drawn.integers(0, 256, (height, width, channels), np.uint8)
        return image


def synthetic(count: int, classes: int, shape: tuple[int, int, int]) -> SyntheticImages:
    """``count`` random images with the classes in turn.

    Args:
        count: how many there are.
        classes: number of labels.
        shape: channels, height, width.
    """
    return SyntheticImages(shape, np.arange(count, dtype=np.int64) % classes)
