"""Normalized batches of a split, in an order that depends only on random seed and epoch."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.decode import UnreadableImageError
from job.data.decoding.pool import TASK_TIMEOUT_S, DecodePool
from job.data.decoding.worker_process import FetchedImage, decode_one
from job.data.sources import BadImage, LabelledImage, Outcome, Source
from job.data.transforms import Draw, Floats, Image, Ints, Pixels, Transform, generator, normalize
from job.detection import geometry
from job.detection.annotations import Annotations
from job.detection.augment import batch_size_of
from job.detection.targets import targets
from job.errors import DataError

_ORDER_STREAM = 0
_SIZE_STREAM = 6
_BATCHES_OF_A_SIZE = 10
_NAMED_FILES = 5
# How many more images are checked for the error message once too many are bad.
_LOOKED_AT_FURTHER = 200


@dataclass(frozen=True, eq=False)
class Batch:
    """Images ready for the network.

    Attributes:
        images: float32 ``[n, channels, height, width]``, contiguous.
        labels: int64 ``[n]``.
        indices: int64 ``[n]``, numbers of the images in their source.
        objects: the objects of each image, in pixels of ``images``; None if the source has labels.
    """

    images: Floats
    labels: Ints
    indices: Ints
    objects: tuple[Annotations, ...] | None = None

    @property
    def targets(self) -> tuple[NDArray[Any], ...]:
        """The inputs of the loss besides the images.

        The labels, int64 ``[n]``, or boxes float32 ``[n, m, 4]`` and classes int32 ``[n, m]``, see
        ``job.detection.targets``.
        """
        if self.objects is None:
            return (self.labels,)
        height, width = self.images.shape[2:]
        found = targets(self.objects, (height, width))
        return found.boxes, found.classes


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of brightness 0 to 1; one value, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Loader:
    """Batches of one split, epoch after epoch; a context manager.

    A bad image is reported to ``on_bad`` once and not read again. By default it is omitted. With
    ``replace_bad``, the next good image of its batch replaces it, or the next good image of the
    epoch if its batch has none. Then bad images do not change the size or the number of batches.

    Args:
        source: the images.
        indices: int64, numbers of the split's images in the source.
        transform: resizes all images to the same size.
        normalisation: mean and standard deviation for uint8 images; not used for a packed source.
        batch_size: images per batch; the last batch may be smaller.
        seed: random seed of the order and of the augmentation.
        shuffle: use another order in each epoch; otherwise the order of ``indices``.
        drop_last: omit a smaller last batch.
        replace_bad: replace bad images, for training; see above.
        workers: decoding processes. With 0, or for packed files, this process decodes; an image
            that crashes or hangs the decoder then stops the job.
        max_bad_fraction: maximum share of bad images in the split. Above it, the run fails.
        on_bad: callback for each bad image.
        timeout_s: timeout for decoding 16 images, in seconds. A slower process is replaced.
        sizes: sides of square images with objects, in pixels. All images of ten batches are resized
            to one of them. Empty: batches have the size of ``transform``.
    """

    def __init__(
        self,
        source: Source,
        indices: Ints,
        transform: Transform,
        normalisation: Normalisation,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        replace_bad: bool = False,
        workers: int = 0,
        max_bad_fraction: float = 0.0,
        on_bad: Callable[[BadImage], None] | None = None,
        timeout_s: float = TASK_TIMEOUT_S,
        sizes: Sequence[int] = (),
    ) -> None:
        self._source = source
        self._indices = indices
        self._transform = transform
        self._normalisation = normalisation
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._drop_last = drop_last
        self._replace_bad = replace_bad
        self._workers = 0 if source.normalised else workers
        self._max_bad_fraction = max_bad_fraction
        self._on_bad = on_bad
        self._timeout_s = timeout_s
        self._sizes = sizes
        self._bad: dict[int, BadImage] = {}
        self._pool: DecodePool | None = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the decoding processes, if any."""
        if self._pool:
            self._pool.close()
        self._pool = None

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches of an epoch; bad images that are not replaced can reduce it."""
        whole, rest = divmod(len(self._indices), self._batch_size)
        return whole if rest == 0 or self._drop_last else whole + 1

    @property
    def bad_images(self) -> Sequence[BadImage]:
        """The bad images so far."""
        return tuple(self._bad.values())

    def order(self, epoch: int) -> Ints:
        """Return the numbers of the images in the order of an epoch, int64 ``[n]``."""
        if not self._shuffle:
            return self._indices
        return generator(self._seed, _ORDER_STREAM, epoch).permutation(self._indices)

    @property
    def identity(self) -> str:
        """A checksum of the order and the labels of the first epoch."""
        order = self.order(0)
        arrays = (
            np.ascontiguousarray(array, np.int64) for array in (order, self._source.labels[order])
        )
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def batches(self, epoch: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch; a new call ends the iteration of the call before.

        Args:
            epoch: number of the epoch.
            start_batch: number of the first batch to yield.

        Raises:
            DataError: too many images are bad, or all.
        """
        order = self.order(epoch)[: self.batches_per_epoch * self._batch_size]
        rest = order[start_batch * self._batch_size :]
        outcomes = self._outcomes(epoch, rest)
        ahead: deque[tuple[int, Outcome]] = deque()
        for number in range(start_batch, self.batches_per_epoch):
            while len(ahead) < self._batch_size and (more := next(outcomes, None)):
                ahead.append(more)
            drawn = [ahead.popleft() for _ in range(min(self._batch_size, len(ahead)))]
            if self._replace_bad:
                if not any(_is_good(outcome) for _, outcome in drawn):
                    drawn = [self._next_good(epoch, order, ahead, outcomes)] * len(drawn)
                drawn = _with_replacements(drawn)
            good = [(index, found) for index, found in drawn if not isinstance(found, BadImage)]
            if good:
                yield self._batch(self._resized(good, epoch, number))

    def _next_good(
        self,
        epoch: int,
        order: Ints,
        ahead: deque[tuple[int, Outcome]],
        outcomes: Iterator[tuple[int, Outcome]],
    ) -> tuple[int, Outcome]:
        for drawn in ahead:
            if _is_good(drawn[1]):
                return drawn
        for drawn in outcomes:
            ahead.append(drawn)
            if _is_good(drawn[1]):
                return drawn
        # There is no good image up to the end of the epoch, so search from its start.
        for drawn in self._outcomes(epoch, order):
            if _is_good(drawn[1]):
                return drawn
        raise DataError(
            f"{self._source.where}: cannot read any of the {len(order):,} images",
            "Check that the files are images in a supported format.",
        )

    def _outcomes(self, epoch: int, order: Ints) -> Iterator[tuple[int, Outcome]]:
        known = dict(self._bad)
        unknown = [index for index in order.tolist() if index not in known]
        decoded = zip(unknown, self._decode(epoch, unknown), strict=False)
        for index in order.tolist():
            outcome = known[index] if index in known else next(decoded)[1]
            if self._add_bad(index, outcome) and self._too_many_bad:
                # The message names more bad files, so that the user can repair them together.
                for further in islice(decoded, _LOOKED_AT_FURTHER):
                    self._add_bad(*further)
                raise self._refusal()
            yield index, outcome

    def _decode(self, epoch: int, indices: Sequence[int]) -> Iterator[Outcome]:
        if self._workers == 0:
            return self._decode_all_here(epoch, indices)
        if self._pool is None:
            self._pool = DecodePool(
                self._source,
                self._transform,
                seed=self._seed,
                workers=self._workers,
                ahead=2 * self._batch_size,
                timeout_s=self._timeout_s,
            )
        return self._pool.decode(epoch, indices)

    def _decode_all_here(self, epoch: int, indices: Sequence[int]) -> Iterator[Outcome]:
        source, ahead = self._source, 2 * self._batch_size
        for place, index in enumerate(indices):
            if isinstance(source, FetchedImage) and place % self._batch_size == 0:
                source.prefetch(indices[place : place + ahead])
            yield self._decode_here(epoch, index)

    def _decode_here(self, epoch: int, index: int) -> Outcome:
        try:
            return decode_one(self._source, self._transform, Draw(self._seed, epoch, index))
        except UnreadableImageError as error:
            return BadImage.of(self._source, index, error.reason)

    def _add_bad(self, index: int, outcome: Outcome) -> bool:
        """Keep a new bad image; returns False for good images and known bad ones."""
        if not isinstance(outcome, BadImage) or index in self._bad:
            return False
        self._bad[index] = outcome
        if self._on_bad:
            self._on_bad(outcome)
        return True

    @property
    def _too_many_bad(self) -> bool:
        return len(self._bad) > self._max_bad_fraction * len(self._indices)

    def _refusal(self) -> DataError:
        named = "\n".join(
            f"  {bad.path}: {bad.reason}" for bad in islice(self._bad.values(), _NAMED_FILES)
        )
        more = f"\n  and {len(self._bad) - _NAMED_FILES} more"
        return DataError(
            f"{self._source.where}: at least {len(self._bad)} of {len(self._indices):,} images are "
            f"bad, more than data.max_bad_fraction ({self._max_bad_fraction:g}) allows\n{named}"
            f"{more if len(self._bad) > _NAMED_FILES else ''}",
            "Repair or remove these files, or raise data.max_bad_fraction.",
        )

    def _resized(
        self, drawn: Sequence[tuple[int, Image | LabelledImage]], epoch: int, number: int
    ) -> Sequence[tuple[int, Image | LabelledImage]]:
        """Resize the images of a batch to one of ``sizes``, which depends on the batch only.

        Ten batches have the same size, as in Darknet (Redmon and Farhadi, YOLO9000, 2017, section
        2), because the training program is prepared again for each new size.
        """
        if not self._sizes:
            return drawn
        group = number // _BATCHES_OF_A_SIZE
        size = batch_size_of(self._sizes, generator(self._seed, _SIZE_STREAM, epoch, group))
        return [
            (index, LabelledImage(*geometry.resize(_levels(found.pixels), found.objects, size)))
            for index, found in drawn
            if isinstance(found, LabelledImage)
        ]

    def _batch(self, drawn: Sequence[tuple[int, Image | LabelledImage]]) -> Batch:
        indices = np.asarray([index for index, _ in drawn], np.int64)
        objects = tuple(found.objects for _, found in drawn if isinstance(found, LabelledImage))
        stacked = np.stack(
            [found.pixels if isinstance(found, LabelledImage) else found for _, found in drawn]
        )
        if stacked.dtype == np.uint8:
            images = normalize(_levels(stacked), self._normalisation.mean, self._normalisation.std)
        else:
            images = np.ascontiguousarray(stacked.transpose(0, 3, 1, 2), np.float32)
        labels = self._source.labels[indices]
        return Batch(images, labels, indices, objects or None)


def _levels(image: Image) -> Pixels:
    return image.astype(np.uint8, copy=False)


def _is_good(outcome: Outcome) -> bool:
    return not isinstance(outcome, BadImage)


def _with_replacements(drawn: Sequence[tuple[int, Outcome]]) -> list[tuple[int, Outcome]]:
    """Replace each bad image by the next good one, which may be at the start of the batch."""
    return [
        next(other for other in chain(drawn[place:], drawn) if _is_good(other[1]))
        for place in range(len(drawn))
    ]
