"""Transforms of images with objects: resize, and the augmentation of training images."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from job.data.transforms import Draw, Image, Size
from job.detection import augment, geometry
from job.detection.annotations import Annotations
from job.detection.geometry import Labelled, Pixels

# Half of the range of the factors of brightness, contrast and saturation, and degrees of hue, at
# full strength, as in PaddleDetection.
_FACTOR, _HUE = 0.5, 18.0
# Level of the canvas around an expanded image.
_GRAY = (127,)


@runtime_checkable
class LabelledTransform(Protocol):
    """Makes an image of ``size`` (height, width) and moves its objects."""

    @property
    def size(self) -> Size:
        """Height and width of the result."""

    def labelled(self, image: Image, objects: Annotations, draw: Draw, /) -> Labelled:
        """Return the transformed image, uint8, and its objects in pixels of the result."""


@dataclass(frozen=True)
class ResizeObjects:
    """The evaluation transform: resizes directly to ``size``, without a crop."""

    size: Size

    def __call__(self, image: Image, _draw: Draw | None = None, /) -> Image:
        """Resize an image without objects, see ``Transform``."""
        return geometry.resize_pixels(_pixels(image), self.size)

    def labelled(self, image: Image, objects: Annotations, _draw: Draw, /) -> Labelled:
        """See ``LabelledTransform``; uses no random numbers."""
        return geometry.resize(_pixels(image), objects, self.size)


@dataclass(frozen=True)
class AugmentObjects:
    """The training transform; the order of the changes is PaddleDetection's.

    Attributes:
        size: height and width of the result.
        distort: strength of the changes of colours, 0 to 1.
        expand: largest factor of the canvas; 1: none.
        crop: smallest side of a crop, as a share of the image's side; 1: none.
        flip: directions: horizontal, vertical, transpose.
    """

    size: Size
    distort: float
    expand: float
    crop: float
    flip: tuple[str, ...]

    def __call__(self, image: Image, draw: Draw, /) -> Image:
        """Transform an image without objects, see ``Transform``."""
        return self.labelled(image, Annotations.none(), draw)[0]

    def labelled(self, image: Image, objects: Annotations, draw: Draw, /) -> Labelled:
        """See ``LabelledTransform``."""
        rng = draw.generator()
        pixels = _pixels(image)
        if self.distort:
            pixels = augment.distort(pixels, self._colours(), rng)
        if self.expand > 1:
            pixels, objects = augment.random_expand(
                pixels, objects, rng, largest=self.expand, fill=_GRAY
            )
        if self.crop < 1:
            window = augment.CropSettings(scale=(self.crop, 1.0))
            pixels, objects = augment.random_crop(pixels, objects, rng, window)
        pixels, objects = augment.random_flip(
            pixels,
            objects,
            rng,
            horizontal=self._probability("horizontal"),
            vertical=self._probability("vertical"),
            transposed=self._probability("transpose"),
        )
        return geometry.resize(pixels, objects, self.size)

    def _colours(self) -> augment.Distortion:
        low, high = 1 - _FACTOR * self.distort, 1 + _FACTOR * self.distort
        hue = _HUE * self.distort
        return augment.Distortion((low, high), (low, high), (low, high), (-hue, hue))

    def _probability(self, direction: str) -> float:
        return 0.5 if direction in self.flip else 0.0


def _pixels(image: Image) -> Pixels:
    return image.astype(np.uint8, copy=False)
