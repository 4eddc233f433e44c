"""Transform an image of any size to the network's input, with pure functions.

Images are ``[height, width, channels]``, uint8, or float32 for packed files, which are already
normalized. Resizing is bilinear with antialiasing, as in Pillow and the usual ImageNet tools.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from job.errors import UsageError

_CROP_ATTEMPTS = 10
# A resized image of more pixels is never made; only the part that the crop keeps is resized. Below
# the limit, the result equals the result of resizing the whole image, to the last bit.
_LARGEST_RESIZED = 16_000_000
# Makes the random numbers of the augmentation independent of the random numbers of the data order.
_AUGMENT_STREAM = 1

# The array types of the data modules.
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8 | np.float32]

Size = tuple[int, int]
Box = tuple[int, int, int, int]
# Top, left, bottom, right.
FloatBox = tuple[float, float, float, float]
_BILINEAR = PillowImage.Resampling.BILINEAR


@dataclass(frozen=True)
class Draw:
    """The inputs of an image's random numbers.

    Attributes:
        seed: random seed.
        epoch: number of the epoch.
        index: number of the image in its source.
    """

    seed: int
    epoch: int
    index: int

    def generator(self) -> np.random.Generator:
        """Return a new generator; equal draws give equal generators."""
        return generator(self.seed, _AUGMENT_STREAM, self.epoch, self.index)


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Return a generator; other ``stream`` numbers give independent random numbers."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stream])))


class Transform(Protocol):
    """Makes an image of ``size`` (height, width); equal draws give equal images."""

    @property
    def size(self) -> Size:
        """Height and width of the result."""

    def __call__(self, image: Image, draw: Draw, /) -> Image:
        """Return the transformed image, of the same dtype and channels."""


@dataclass(frozen=True)
class Evaluate:
    """The evaluation transform; no randomness.

    Attributes:
        size: height and width of the result.
        resize_short: length to which the short side is resized before the centre crop. None: the
            image is resized directly to ``size``, which can change its aspect ratio.

    Raises:
        UsageError: ``resize_short`` is less than a side of ``size``.
    """

    size: Size
    resize_short: int | None = None

    def __post_init__(self) -> None:
        if self.resize_short is not None and self.resize_short < max(self.size):
            raise UsageError(
                f"/data/resize_short: expected at least {max(self.size)} for the network's input "
                f"of {self.size[0]}x{self.size[1]}, found {self.resize_short}",
                f"Set at least {max(self.size)}, or null to resize directly to the input size.",
            )

    def __call__(self, image: Image, _draw: Draw | None = None, /) -> Image:
        """See ``Transform``; uses no random numbers."""
        if self.resize_short is None:
            return resize(image, self.size)
        height, width = image.shape[:2]
        short = min(height, width)
        scaled = (
            int(self.resize_short * height / short),
            int(self.resize_short * width / short),
        )
        if scaled[0] * scaled[1] > _LARGEST_RESIZED:
            return resized_centre(image, scaled, self.size)
        return centre_crop(resize(image, scaled), self.size)


@dataclass(frozen=True)
class Augment:
    """The training transform.

    Attributes:
        evaluate: the evaluation transform, for the crops ``pad`` and ``none``.
        crop: ``random_resized`` crops a random part and resizes it. ``pad`` pads the evaluated
            image with ``padding`` black pixels (0 in packed files) and crops at random. ``none``
            uses the evaluated image.
        scale: minimum and maximum area of the random part, as a share of the image.
        ratio: minimum and maximum of its width divided by its height.
        padding: pixels on each side.
        flip: mirror the image with a probability of 0.5.
    """

    evaluate: Evaluate
    crop: str = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    padding: int = 4
    flip: bool = True

    @property
    def size(self) -> Size:
        """Height and width of the result."""
        return self.evaluate.size

    def __call__(self, image: Image, draw: Draw, /) -> Image:
        """See ``Transform``."""
        rng = draw.generator()
        # The flip is drawn first, because crops use different amounts of random numbers.
        mirrored = self.flip and rng.random() < 0.5
        if self.crop == "random_resized":
            image = self._random_resized(image, rng)
        else:
            image = self.evaluate(image)
            if self.crop == "pad":
                image = self._padded(image, rng)
        return image[:, ::-1] if mirrored else image

    def _random_resized(self, image: Image, rng: np.random.Generator) -> Image:
        top, left, height, width = random_box(image.shape[0], image.shape[1], self, rng)
        return resize(image[top : top + height, left : left + width], self.size)

    def _padded(self, image: Image, rng: np.random.Generator) -> Image:
        height, width = self.size
        top, left = rng.integers(0, 2 * self.padding, size=2, endpoint=True)
        # np.pad takes longer than the rest of the transform for small images.
        padded = np.zeros(
            (height + 2 * self.padding, width + 2 * self.padding, image.shape[2]), image.dtype
        )
        padded[self.padding : self.padding + height, self.padding : self.padding + width] = image
        return padded[top : top + height, left : left + width]


def random_box(height: int, width: int, settings: Augment, rng: np.random.Generator) -> Box:
    """Return the random box of Inception's training crop, as (top, left, height, width).

    If ten draws do not fit into the image, the result is the largest centred box with an allowed
    aspect ratio.
    """
    log_ratio = (math.log(settings.ratio[0]), math.log(settings.ratio[1]))
    for _ in range(_CROP_ATTEMPTS):
        area = height * width * rng.uniform(*settings.scale)
        ratio = math.exp(rng.uniform(*log_ratio))
        cut_width = round(math.sqrt(area * ratio))
        cut_height = round(math.sqrt(area / ratio))
        if 0 < cut_width <= width and 0 < cut_height <= height:
            top = int(rng.integers(0, height - cut_height, endpoint=True))
            left = int(rng.integers(0, width - cut_width, endpoint=True))
            return top, left, cut_height, cut_width
    ratio = min(max(width / height, settings.ratio[0]), settings.ratio[1])
    cut_width = max(1, min(width, round(height * ratio)))
    cut_height = max(1, min(height, round(width / ratio)))
    return (height - cut_height) // 2, (width - cut_width) // 2, cut_height, cut_width


def resize(image: Image, size: Size) -> Image:
    """Resize an image to (height, width), bilinear with antialiasing."""
    if image.shape[:2] == size:
        return image
    return _resized_box(image, size, (0.0, 0.0, float(image.shape[0]), float(image.shape[1])))


def _resized_box(image: Image, size: Size, box: FloatBox) -> Image:
    """Resize the part of an image from (top, left) to (bottom, right) to ``size``.

    The filter also reads pixels around the part, as if the whole image were resized.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return _resize_plane(image, size, box)
    planes = [_resize_plane(image[..., channel], size, box) for channel in range(image.shape[2])]
    return np.stack(planes, axis=2)


def _resize_plane(pixels: Image, size: Size, box: FloatBox) -> Image:
    source = PillowImage.fromarray(np.ascontiguousarray(pixels))
    height, width = size
    top, left, bottom, right = box
    if width * pixels.shape[0] > max(_LARGEST_RESIZED, pixels.shape[1] * height):
        # Pillow resizes the width first, so a tall and narrow image would grow a thousandfold.
        source = source.resize(
            (pixels.shape[1], height), _BILINEAR, (0, top, pixels.shape[1], bottom)
        )
        top, bottom = 0, height
    resized: Image = np.asarray(
        source.resize((width, height), _BILINEAR, (left, top, right, bottom)), dtype=pixels.dtype
    )
    return resized


def resized_centre(image: Image, scaled: Size, size: Size) -> Image:
    """Return the centre of an image resized to ``scaled``, without resizing the rest of it."""
    rows, top, bottom = _kept(image.shape[0], scaled[0], size[0])
    columns, left, right = _kept(image.shape[1], scaled[1], size[1])
    return _resized_box(image[rows, columns], size, (top, left, bottom, right))


def _kept(length: int, scaled: int, size: int) -> tuple[slice, float, float]:
    """Return the pixels along one axis that the centre of the resized image depends on.

    Args:
        length: pixels of the image.
        scaled: pixels of the resized image.
        size: pixels of its centre.

    Returns:
        The pixels, and the start and the end of the centre, counted from the first of the pixels.
    """
    scale = length / scaled
    start = _margin(scaled, size) * scale
    end = min(start + size * scale, length)
    # The bilinear filter reads as far as one pixel of the larger of both images.
    reach = math.ceil(max(scale, 1)) + 1
    first = max(0, math.floor(start) - reach)
    last = min(length, math.ceil(end) + reach)
    return slice(first, last), start - first, end - first


def centre_crop(image: Image, size: Size) -> Image:
    """Return the centre of an image, which is at least of ``size`` (height, width)."""
    top, left = _margin(image.shape[0], size[0]), _margin(image.shape[1], size[1])
    return image[top : top + size[0], left : left + size[1]]


def _margin(length: int, size: int) -> int:
    return round((length - size) / 2)


def normalize(images: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> Floats:
    """Return ``(x / 255 - mean) / std``, channels first.

    Args:
        images: uint8 ``[n, height, width, channels]``.
        mean: one value, or one per channel, of brightness 0 to 1.
        std: one value, or one per channel, greater than 0.

    Returns:
        float32 ``[n, channels, height, width]``, contiguous.
    """
    count, height, width, channels = images.shape
    deviation = np.broadcast_to(np.asarray(std, np.float64), channels)
    offset = np.broadcast_to(np.asarray(mean, np.float64), channels) / deviation
    scale = (1 / 255 / deviation).astype(np.float32).reshape(channels, 1, 1)
    shift = offset.astype(np.float32).reshape(channels, 1, 1)
    result = np.empty((count, channels, height, width), np.float32)
    # One image fits into the CPU cache, so a loop is twice as fast as one batch operation.
    for pixels, normalised in zip(images, result, strict=True):
        np.multiply(pixels.transpose(2, 0, 1), scale, out=normalised)
        normalised -= shift
    return result
