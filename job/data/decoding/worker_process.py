"""A decoding process, which reads and transforms images for ``pool.DecodePool``.

multiprocessing is not used, because it would import the parent's main module again. The process
inherits three file descriptors: a socket for tasks, a file with the setup, and shared memory for
the pixels.
"""

import contextlib
import ctypes
import mmap
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from job.data.decode import UnreadableImageError
from job.data.labelled_transforms import LabelledTransform
from job.data.objects import LabelledSource
from job.data.sources import LabelledImage, Source
from job.data.transforms import Draw, Image, Pixels, Transform
from job.detection.annotations import Annotations
from job.errors import JobError

_PR_SET_PDEATHSIG = 1
_ALIVE_SECONDS = 5.0


@dataclass(frozen=True)
class Setup:
    """The setup of a decoding process.

    Attributes:
        source: the images.
        transform: applied to each image.
        seed: random seed of the augmentation.
        slot_shape: shape of the shared memory: slots, images per slot, height, width, channels.
    """

    source: Source
    transform: Transform
    seed: int
    slot_shape: tuple[int, int, int, int, int]


@dataclass(frozen=True)
class DecodeTask:
    """Images to decode into one slot.

    Attributes:
        chunk: number of the chunk of the images.
        offset: position of the first image in its chunk.
        epoch: epoch of the augmentation.
        indices: numbers of the images in the source.
        retry: True if a process crashed or hung with these images before.
    """

    chunk: int
    offset: int
    epoch: int
    indices: tuple[int, ...]
    retry: bool = False


@dataclass(frozen=True)
class Ready:
    """Message of a process that has started, or that waits for the network."""


@dataclass(frozen=True)
class Done:
    """Message of a process whose oldest task is done.

    Attributes:
        bad: the reasons of bad images by position in the task.
        error: an error that affects every image; it ends the job.
        objects: the objects of labelled images by position in the task.
    """

    bad: dict[int, str]
    error: JobError | None = None
    objects: Mapping[int, Annotations] = field(default_factory=dict)


@runtime_checkable
class FetchedImage(Protocol):
    """A source whose images are downloaded before they can be read."""

    def prefetch(self, indices: Sequence[int]) -> None:
        """Start to download images."""

    def ready(self, index: int, seconds: float) -> bool:
        """Wait for an image, and return whether it can be read without waiting."""


def decode_one(source: Source, transform: Transform, draw: Draw) -> Image | LabelledImage:
    """Read and transform one image, with its objects if the source has objects.

    Args:
        source: the images.
        transform: applied to the image.
        draw: number of the image, random seed and epoch.

    Returns:
        ``[height, width, channels]``, uint8, or float32 for a normalized source; a LabelledImage if
        the source has objects.

    Raises:
        UnreadableImageError: the image cannot be used.
        DataError: a box is outside the image.
    """
    if isinstance(source, LabelledSource) and isinstance(transform, LabelledTransform):
        return LabelledImage(*transform.labelled(*source.read_labelled(draw.index), draw))
    return transform(source.read(draw.index), draw)


def shared_slots(descriptor: int, shape: tuple[int, ...]) -> Pixels:
    """Map shared memory as a uint8 array of the given shape."""
    memory = mmap.mmap(descriptor, int(np.prod(shape)))
    return np.frombuffer(memory, np.uint8).reshape(shape)


def main(arguments: list[str]) -> None:
    """Process tasks until the parent closes the socket.

    Args:
        arguments: the parent's process id, and the descriptors of socket, setup and pixels.
    """
    parent, socket, setup_file, memory = map(int, arguments)
    _belong_to(parent)
    setup: Setup = pickle.loads(_whole(setup_file))  # noqa: S301 - written by our parent
    slots = shared_slots(memory, setup.slot_shape)
    connection: Connection[Any, Any] = Connection(socket)
    connection.send(Ready())
    for number, task in enumerate(_tasks(connection, setup.source)):
        slot = slots[number % len(slots)]
        connection.send(_decode(setup, task, slot, connection))


def _belong_to(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    # If memory runs out, the kernel should kill this process and not the job.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _whole(descriptor: int) -> bytes:
    # read() would move the file position, which all processes share.
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _tasks(connection: "Connection[Any, Any]", source: Source) -> Iterator[DecodeTask]:
    """Yield the tasks in order, while the images of later tasks are downloaded."""
    waiting: deque[DecodeTask] = deque()
    while True:
        try:
            while not waiting or connection.poll():
                task: DecodeTask = connection.recv()
                if isinstance(source, FetchedImage):
                    source.prefetch(task.indices)
                waiting.append(task)
        except (EOFError, ConnectionError):
            return
        yield waiting.popleft()


def _decode(
    setup: Setup, task: DecodeTask, slot: Pixels, connection: "Connection[Any, Any]"
) -> Done:
    bad: dict[int, str] = {}
    objects: dict[int, Annotations] = {}
    for place, index in enumerate(task.indices):
        if isinstance(setup.source, FetchedImage):
            while not setup.source.ready(index, _ALIVE_SECONDS):
                connection.send(Ready())
        try:
            draw = Draw(setup.seed, task.epoch, index)
            decoded = decode_one(setup.source, setup.transform, draw)
            if isinstance(decoded, LabelledImage):
                objects[place] = decoded.objects
                decoded = decoded.pixels
            slot[place] = decoded
        except UnreadableImageError as error:
            bad[place] = error.reason
        except JobError as error:
            return Done(bad, type(error)(error.message, error.hint))
    return Done(bad, objects=objects)
