"""Labelled images with random access: files, arrays in memory, the packed binary format.

Sources are frozen and picklable, because decoding processes get a copy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from job.data import packed
from job.data.decode import UnreadableImageError, decode
from job.data.transforms import Image, Ints, Pixels, generator
from job.detection.annotations import Annotations


class Source(Protocol):
    """Labelled images, which are read one by one by their number."""

    @property
    def where(self) -> str:
        """The folder, archive or file as in the manifest, for messages."""

    @property
    def names(self) -> Sequence[str]:
        """The path of each image inside ``where``."""

    @property
    def labels(self) -> Ints:
        """int64 ``[n]``, each 0 to classes - 1."""

    @property
    def channels(self) -> int:
        """The number of channels: 1 or 3, or any number in a packed file."""

    @property
    def normalised(self) -> bool:
        """True if images are normalized float32, so that mean and std do not apply."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, index: int) -> Image:
        """Return one image ``[height, width, channels]``: uint8, or float32 if ``normalised``.

        Raises:
            UnreadableImageError: this image cannot be used.
        """


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used.

    Attributes:
        path: its name in its source.
        reason: why it cannot be used.
    """

    path: str
    reason: str

    @classmethod
    def of(cls, source: Source, index: int, reason: str) -> "BadImage":
        """Return a BadImage for image ``index``; non-UTF-8 bytes of its name are escaped."""
        printable = source.names[index].encode(errors="backslashreplace").decode()
        return cls(printable, reason)


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image and its objects.

    Attributes:
        pixels: uint8 ``[height, width, channels]``.
        objects: the objects, in pixels of the image.
    """

    pixels: Image
    objects: Annotations


Outcome = Image | LabelledImage | BadImage


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files below one folder.

    Attributes:
        folder: the folder that ``names`` are relative to.
        where: the folder or archive as in the manifest.
        names: paths relative to ``folder``.
        labels: int64 ``[n]``.
        channels: 1 (gray) or 3 (RGB); images are converted.
        ignored: number of files that were skipped because of their extension.
        system_folders: number of files that were skipped in system folders, by folder name.
        class_names: name of each class by label; empty if only numbers are known.
        normalised: False; see ``Source``.
    """

    folder: Path
    where: str
    names: Sequence[str]
    labels: Ints
    channels: int
    ignored: int = 0
    system_folders: Mapping[str, int] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    normalised: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Image:
        """Return an image, uint8 ``[height, width, channels]``; see ``Source.read``."""
        return decode(self.folder / self.names[index], self.channels)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory.

    Attributes:
        images: uint8 ``[n, height, width, channels]``.
        labels: int64 ``[n]``.
        where: the name of the data set.
        normalised: False; see ``Source``.
    """

    images: Pixels
    labels: Ints
    where: str
    normalised: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """The images' channels."""
        return int(self.images.shape[3])

    @property
    def names(self) -> Sequence[str]:
        """``where#number``."""
        return [f"{self.where}#{number}" for number in range(len(self))]

    def read(self, index: int) -> Image:
        """Return an image, uint8 ``[height, width, channels]``."""
        image: Image = self.images[index]
        return image


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Images of the packed binary format, used without further preprocessing.

    Attributes:
        path: the file.
        shape: channels, height, width.
        labels: int64 ``[n]``.
        normalised: True; see ``Source``.
    """

    path: Path
    shape: tuple[int, int, int]
    labels: Ints
    normalised: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def channels(self) -> int:
        """The images' channels."""
        return self.shape[0]

    @property
    def names(self) -> Sequence[str]:
        """``file name#number``."""
        return [f"{self.path.name}#{number}" for number in range(len(self))]

    def read(self, index: int) -> Image:
        """Return an image, float32 ``[height, width, channels]``, a view of channels first.

        Raises:
            UnreadableImageError: the image contains NaN or infinity.
        """
        image = packed.read_image(self.path, self.shape, index)
        if not np.isfinite(image).all():
            raise UnreadableImageError("contains NaN or infinity")
        return image.transpose(1, 2, 0)


def digits(channels: int) -> ArrayImages:
    """Return scikit-learn's 1,797 handwritten digits, 8x8, gray levels scaled to 0 to 255.

    Args:
        channels: the gray channel is repeated this many times.
    """
    # Importing scikit-learn takes a second, and only this data set needs it.
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    loaded = load_digits()
    gray = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(gray[..., np.newaxis], channels, axis=3)
    return ArrayImages(images=images, labels=loaded.target.astype(np.int64), where="digits")


SYNTHETIC_SEED = 0
_SYNTHETIC_STREAM = 4


@dataclass(frozen=True, eq=False)
class SyntheticImages:
    """Random images, generated when they are read; the same images each time.

    Attributes:
        shape: channels, height, width of every image.
        labels: int64 ``[n]``, unrelated to the images.
        where: the data set in messages.
        normalised: False; see ``Source``.
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
        """Return an image, uint8 ``[height, width, channels]``, with uniform random values."""
        channels, height, width = self.shape
        random = generator(SYNTHETIC_SEED, _SYNTHETIC_STREAM, index)
        image: Image = random.integers(0, 256, (height, width, channels), np.uint8)
        return image


def synthetic(count: int, classes: int, shape: tuple[int, int, int]) -> SyntheticImages:
    """Return random images with labels 0, 1, ..., ``classes`` - 1, 0, 1, ...

    Args:
        count: number of images.
        classes: number of classes.
        shape: channels, height, width.
    """
    return SyntheticImages(shape, np.arange(count, dtype=np.int64) % classes)
