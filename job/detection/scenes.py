"""Scenes: images of handwritten digits at random places, with exact boxes.

They are the data set for detection that needs no files. Small digits need the head of stride 8 and
large digits a head of stride 16 or 32. A scene depends only on the seed and its number, so that any
process can make any scene.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from job.detection import boxes as box_arrays
from job.detection.annotations import Annotations
from job.detection.boxes import Size
from job.detection.geometry import Labelled, Pixels

CLASSES = tuple("0123456789")

# Makes the random numbers of scenes independent of other random numbers of the same seed.
_STREAM = 5
_ATTEMPTS = 60
# Strokes are visible where a resized digit has at least this level, so that boxes are exact.
_LOWEST_INK = 64
_STEPS = 8


@dataclass(frozen=True)
class SceneSettings:
    """How scenes look.

    Attributes:
        size: height and width of a scene, in pixels.
        channels: 1 for gray, 3 for RGB.
        small: lowest and highest number of small digits, and the same of their heights in pixels.
        large: the same for large digits.
        overlap: highest IoU of two boxes.
        hidden: highest share of a box that another box may cover, because a small digit inside
            a large one has a low IoU.
        noise: standard deviation of the background's noise, in levels of 255.
    """

    size: Size = (128, 128)
    channels: int = 3
    small: tuple[int, int, int, int] = (3, 6, 16, 30)
    large: tuple[int, int, int, int] = (1, 2, 48, 80)
    overlap: float = 0.05
    hidden: float = 0.15
    noise: float = 12.0


@dataclass(frozen=True, eq=False)
class Scenes:
    """An endless sequence of scenes.

    Attributes:
        digits: uint8 ``[n, height, width]``, gray images of digits on black. Use different digits
            for training and for the test.
        labels: int64 ``[n]``, 0 to 9.
        seed: random seed.
        settings: how scenes look.
    """

    digits: Pixels
    labels: npt.NDArray[np.int64]
    seed: int
    settings: SceneSettings = SceneSettings()

    def __call__(self, index: int) -> Labelled:
        """Return a scene and its digits, small digits after large ones.

        Args:
            index: number of the scene, at least 0.

        Returns:
            uint8 ``[height, width, channels]``, and the objects.
        """
        settings = self.settings
        rng = np.random.default_rng([self.seed, _STREAM, index])
        canvas = _background(settings, rng)
        placed: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        # Large digits first, because small ones leave no room for them.
        for fewest, most, shortest, tallest in (settings.large, settings.small):
            for _ in range(int(rng.integers(fewest, most, endpoint=True))):
                chosen = int(rng.integers(len(self.digits)))
                height = int(rng.integers(shortest, tallest, endpoint=True))
                ink = _drawn(self.digits[chosen], height, float(rng.uniform(0.8, 1.2)))
                box = _place(ink.shape, placed, settings, rng)
                if box is not None:
                    _paint(canvas, ink, box, rng)
                    placed.append(box)
                    labels.append(int(self.labels[chosen]))
        np.rint(canvas, out=canvas)
        image = np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
        return image, Annotations.of(placed, labels)


def _background(settings: SceneSettings, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a smooth gradient with noise, float32 ``[height, width, channels]``."""
    height, width = settings.size
    smooth = rng.uniform(30, 130, (_STEPS, _STEPS, settings.channels)).astype(np.float32)
    planes = [
        np.asarray(
            PillowImage.fromarray(smooth[..., channel]).resize(
                (width, height), PillowImage.Resampling.BILINEAR
            )
        )
        for channel in range(settings.channels)
    ]
    noise = rng.standard_normal((height, width, settings.channels), np.float32)
    canvas: npt.NDArray[np.float32] = np.stack(planes, axis=2) + np.float32(settings.noise) * noise
    return canvas


def _drawn(digit: Pixels, height: int, aspect: float) -> Pixels:
    """Return the strokes of a digit in a given height, uint8; 0 is transparent.

    The first and the last row and column contain ink, so the array's shape is the box.

    Args:
        digit: gray image of a digit on black.
        height: pixels of the result.
        aspect: factor of the digit's own width.
    """
    strokes = _trimmed(digit, 1)
    # Strokes become thinner than the resized image at its edges, so a larger image is trimmed.
    larger = height
    while True:
        width = max(2, round(strokes.shape[1] / strokes.shape[0] * larger * aspect))
        resized = PillowImage.fromarray(np.ascontiguousarray(strokes)).resize(
            (width, larger), PillowImage.Resampling.BILINEAR
        )
        ink = _trimmed(np.asarray(resized, np.uint8), _LOWEST_INK)
        if ink.shape[0] >= height:
            return ink
        larger += height - ink.shape[0]


def _trimmed(digit: Pixels, lowest: int) -> Pixels:
    """Return the part of an image that has ink of at least the lowest level; other ink is 0."""
    ink = np.where(digit >= lowest, digit, 0)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    part: Pixels = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return part


def _place(
    shape: tuple[int, ...],
    placed: list[tuple[int, int, int, int]],
    settings: SceneSettings,
    rng: np.random.Generator,
) -> tuple[int, int, int, int] | None:
    """Return a box of the given height and width that hides no other box; None if none is found."""
    height, width = settings.size
    room = np.array([width - shape[1], height - shape[0]])
    if (room < 0).any():
        return None
    corners = rng.integers(0, room, (_ATTEMPTS, 2), endpoint=True)
    tried = np.concatenate([corners, corners + np.array([shape[1], shape[0]])], axis=1).astype(
        np.float64
    )
    fits = np.ones(_ATTEMPTS, np.bool_)
    if placed:
        others = np.array(placed, np.float64)
        fits &= box_arrays.iou(tried, others).max(axis=1) <= settings.overlap
        fits &= box_arrays.coverage(tried, others).max(axis=1) <= settings.hidden
        fits &= box_arrays.coverage(others, tried).max(axis=0) <= settings.hidden
    if not fits.any():
        return None
    x0, y0, x1, y1 = tried[int(np.argmax(fits))].astype(int).tolist()
    return x0, y0, x1, y1


def _paint(
    canvas: npt.NDArray[np.float32],
    ink: Pixels,
    box: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> None:
    """Blend a bright colour into the canvas where the digit has ink."""
    x0, y0, x1, y1 = box
    colour = np.array(rng.uniform(190, 255, (canvas.shape[2],)), np.float32)
    opacity = np.divide(ink[..., None], 255, dtype=np.float32)
    canvas[y0:y1, x0:x1] += opacity * (colour - canvas[y0:y1, x0:x1])
