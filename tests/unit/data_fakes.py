"""Tiny images and sources for the tests of job.data; imported in decoding processes as well."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from job.data.decode import UnreadableImageError
from job.data.transforms import Image as Pixels
from job.data.transforms import Ints


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    """Save a random picture of (width, height); the extension gives the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_folders(root: Path, classes: Sequence[str], images: int) -> Path:
    """Make a folder of class folders with ``count`` pictures each."""
    for label, name in enumerate(classes):
        for number in range(images):
            save_image(root / name / f"{number}.png", 100 * label + number)
    return root


@dataclass(frozen=True)
class TroubledSource:
    """Images of one colour each; some are bad, some crash or stop the process that reads them."""

    count: int
    bad: tuple[int, ...] = ()
    deadly: tuple[int, ...] = ()
    hanging: tuple[int, ...] = ()
    crashing: tuple[int, ...] = ()
    where: str = "troubled"
    channels: int = 3
    normalised: bool = False

    @property
    def names(self) -> Sequence[str]:
        return [f"{index}.jpg" for index in range(self.count)]

    @property
    def labels(self) -> Ints:
        return np.arange(self.count, dtype=np.int64) % 3

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Pixels:
        if index in self.bad:
            raise UnreadableImageError("the file is empty")
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.hanging:
            time.sleep(600)
        if index in self.crashing:
            os._exit(3)
        return np.full((8, 8, 3), index, np.uint8)


@dataclass(frozen=True)
class Unstartable(TroubledSource):
    """Cannot be unpickled, so its process exits immediately."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os._exit, (7,))
