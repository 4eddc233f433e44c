"""Random changes of training images, as in PaddleDetection.

Each function takes the generator of the image's random numbers, so equal generators give equal
images. The order of PaddleDetection's YOLOv3 is ``distort``, ``random_expand``, ``random_crop``,
``random_flip``, and at last ``geometry.resize`` to the ``batch_size_of`` the batch.

Two changes differ from PaddleDetection. Its brightness adds at most 1.5 of 255 levels; here it is a
factor. Its hue is an angle in half turns, so that 18 means 9 turns; here it is in degrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PillowImage

from job.detection import boxes as box_arrays
from job.detection import geometry
from job.detection.annotations import Annotations, Float64s
from job.detection.boxes import Size
from job.detection.geometry import Labelled, Pixels, Window

Range = tuple[float, float]

# Gray levels, and the axes of the colour in YIQ.
_TO_YIQ: Float64s = np.array(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
)
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_LEVELS: Float64s = np.arange(256, dtype=np.float64)
_CROP_ATTEMPTS = 50


@dataclass(frozen=True)
class Distortion:
    """Ranges of the changes of colours; each change is made with ``probability``.

    Attributes:
        brightness: factor of all levels.
        contrast: factor of the distance of levels from the mean gray level of the image.
        saturation: factor of the distance of a pixel's channels from its gray level.
        hue: rotation of colours, in degrees.
        shift: largest change of each channel, in levels of 255.
        probability: probability of each of the changes.
    """

    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: Range = (-18.0, 18.0)
    shift: float = 0.0
    probability: float = 0.5


@dataclass(frozen=True)
class Colours:
    """Changes of colours; the defaults change nothing. See ``Distortion``."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    shift: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class CropSettings:
    """Settings of ``random_crop``.

    Attributes:
        thresholds: lowest IoU of the window with one of the boxes; one of them is chosen.
        scale: side of the window, as a share of the image's side.
        ratio: width of the window divided by its height, for a square image.
    """

    thresholds: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    scale: Range = (0.3, 1.0)
    ratio: Range = (0.5, 2.0)


def distort(image: Pixels, settings: Distortion, rng: np.random.Generator) -> Pixels:
    """Change the colours of an image at random; boxes stay the same."""
    wanted = rng.random(5) < settings.probability
    channels = image.shape[2]
    shift = tuple(settings.shift * float(value) for value in rng.uniform(-1, 1, (channels,)))
    factors = [
        rng.uniform(*limits)
        for limits in (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    ]
    brightness, contrast, saturation = (
        factor if use else 1.0 for factor, use in zip(factors[:3], wanted[:3], strict=True)
    )
    colours = Colours(
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=factors[3] if wanted[3] else 0.0,
        shift=shift if wanted[4] else (0.0,) * channels,
    )
    return recoloured(image, colours)


def recoloured(image: Pixels, colours: Colours) -> Pixels:
    """Change brightness, contrast, saturation, hue, and shift the channels, in this order.

    Levels are limited to 0 to 255 at the end. Images of one channel have no saturation and no hue.

    Args:
        image: uint8 ``[height, width, channels]``, one or three channels.
        colours: the changes.
    """
    gain = colours.brightness * colours.contrast
    channels = image.shape[2]
    picture = PillowImage.fromarray(np.ascontiguousarray(image if channels == 3 else image[..., 0]))
    offset = np.asarray(colours.shift, np.float64)
    if colours.contrast != 1:
        offset = offset + (1 - colours.contrast) * colours.brightness * _mean_gray(picture)
    if channels == 3:
        matrix = np.empty((3, 4))
        matrix[:, :3] = gain * _colour_matrix(colours.saturation, colours.hue)
        matrix[:, 3] = offset
        # Pillow needs a tenth of the time of NumPy.
        changed = picture.convert("RGB", tuple(matrix.ravel().tolist()))
    else:
        levels = np.rint(np.clip(_LEVELS * gain + offset, 0, 255))
        changed = picture.point(levels.astype(int).tolist())
    return np.asarray(changed, np.uint8).reshape(image.shape)


def _mean_gray(picture: PillowImage.Image) -> float:
    counts = np.array(picture.histogram(), np.float64).reshape(-1, 256)
    means = counts @ _LEVELS / counts[0].sum()
    return float(means @ _TO_YIQ[0]) if len(means) == 3 else float(means[0])


def _colour_matrix(saturation: float, hue: float) -> Float64s:
    """Return the matrix of RGB that turns colours by ``hue`` degrees and keeps gray levels.

    Red turns to green, as on the colour wheel.
    """
    angle = np.deg2rad(-hue)
    cosine, sine = saturation * np.cos(angle), saturation * np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix: Float64s = _FROM_YIQ @ turn @ _TO_YIQ
    return matrix


def random_expand(
    image: Pixels,
    objects: Annotations,
    rng: np.random.Generator,
    *,
    largest: float = 4.0,
    fill: Sequence[int] = (127,),
    probability: float = 0.5,
) -> Labelled:
    """Place the image at random on a canvas whose sides are up to ``largest`` times as long.

    Args:
        image: the image.
        objects: its objects.
        rng: the image's random numbers.
        largest: largest factor of the sides, at least 1.
        fill: level of each channel of the canvas, or one level for all.
        probability: probability that the image is expanded.
    """
    wanted, factor = rng.random() < probability, rng.uniform(1, largest)
    height, width = image.shape[:2]
    size = int(height * factor), int(width * factor)
    top = int(rng.integers(0, size[0] - height, endpoint=True))
    left = int(rng.integers(0, size[1] - width, endpoint=True))
    if not wanted:
        return image, objects
    return geometry.expand(image, objects, size, (top, left), fill)


def random_crop(
    image: Pixels,
    objects: Annotations,
    rng: np.random.Generator,
    settings: CropSettings | None = None,
) -> Labelled:
    """Crop an image as for SSD (Liu and others, SSD, 2016, section 2.2).

    The thresholds and the choice to keep the whole image are tried in random order. For a
    threshold, the window is the first of 50 random windows that has at least this IoU with one of
    the boxes and contains the centre of a box. Without such a window, the next one is tried.

    Args:
        image: the image.
        objects: its objects. An image without objects is not cropped.
        rng: the image's random numbers.
        settings: defaults of PaddleDetection if None.
    """
    settings = settings or CropSettings()
    if not len(objects):
        return image, objects
    choices = [*settings.thresholds, None]
    for place in rng.permutation(len(choices)):
        threshold = choices[place]
        if threshold is None:
            break
        window = _window(image, objects, threshold, settings, rng)
        if window is not None:
            return geometry.crop(image, objects, window)
    return image, objects


def _window(
    image: Pixels,
    objects: Annotations,
    threshold: float,
    settings: CropSettings,
    rng: np.random.Generator,
) -> Window | None:
    height, width = image.shape[:2]
    # All attempts at once take a tenth of the time of a loop.
    scale = rng.uniform(*settings.scale, _CROP_ATTEMPTS)
    low = np.maximum(settings.ratio[0], scale**2)
    high = np.minimum(settings.ratio[1], scale**-2)
    ratio = rng.uniform(low, high)
    sides = np.stack([width * scale * np.sqrt(ratio), height * scale / np.sqrt(ratio)], axis=1)
    sides = np.clip(sides.astype(np.int64), 1, [width, height])
    corners = rng.integers(0, [width, height] - sides, endpoint=True)
    windows = np.concatenate([corners, corners + sides], axis=1)
    enough = box_arrays.iou(windows.astype(np.float64), objects.boxes).max(axis=1) >= threshold
    for attempt in np.flatnonzero(enough):
        x0, y0, x1, y1 = windows[attempt].tolist()
        if geometry.centred_in(objects, (x0, y0, x1, y1)).any():
            return x0, y0, x1, y1
    return None


def random_flip(
    image: Pixels,
    objects: Annotations,
    rng: np.random.Generator,
    *,
    horizontal: float = 0.5,
    vertical: float = 0.0,
    transposed: float = 0.0,
) -> Labelled:
    """Flip and transpose an image, each with its own probability.

    PaddleDetection only flips horizontally. Use the others if objects have no upright position.
    """
    wanted = rng.random(3) < (horizontal, vertical, transposed)
    changes = (geometry.flip_horizontal, geometry.flip_vertical, geometry.transpose)
    for change, use in zip(changes, wanted, strict=True):
        if use:
            image, objects = change(image, objects)
    return image, objects


def batch_size_of(sizes: Sequence[int], rng: np.random.Generator) -> Size:
    """Return height and width of the images of one batch, one of ``sizes``.

    Args:
        sizes: sides in pixels, multiples of 32, such as 320, 352, ..., 608.
        rng: random numbers of the batch, not of an image, because images of a batch have equal
            sizes.
    """
    side = int(sizes[int(rng.integers(len(sizes)))])
    return side, side
