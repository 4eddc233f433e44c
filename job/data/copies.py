"""Find images of one split that are byte-identical to images of another split.

Accuracy on such images does not apply to new images. Files are compared by their size, then by
some bytes in their middle, then by their checksum, so nearly all files are read in part or not at
all. Images in S3 are compared by the index, which holds the ETag or the checksum of each.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from job.data import packed
from job.data.s3.images import MISSING, RemoteImages
from job.data.sources import ArrayImages, ImageFiles, PackedImages, Source
from job.data.splits import Part
from job.storage.digests import hash_stream
from job.storage.files import open_regular

_SAMPLE_BYTES = 4096
_SAMPLE_VALUES = 1024
_NAMED = 5
_STEP = 1000

# Returns a property that equal images have in common; None for an image that cannot be read.
_Property = Callable[[int], Hashable | None]


@dataclass(frozen=True)
class Copies:
    """Images of a split that are copies of images of another split.

    Attributes:
        images: number of these images.
        names: names of the first of these images, each with the name of its copy in the other
            split.
    """

    images: int
    names: tuple[tuple[str, str], ...]


def find_copies(part: Part, other: Part, proceed: Callable[[int, int], bool]) -> Copies:
    """Find the images of ``part`` that are byte-identical to an image of ``other``.

    Memory grows with the number of images in ``part``.

    Args:
        part: the split whose images are counted.
        other: the split to search.
        proceed: called after every 1,000 images with their number and the total; returns False to
            stop.
    """
    first, *more = _properties(part.source)
    first_of_other, *more_of_other = _properties(other.source)
    if type(part.source) is not type(other.source):
        return Copies(0, ())
    by_first = defaultdict(list)
    for index in part.indices.tolist():
        by_first[first(index)].append(index)
    by_first.pop(None, None)
    known: list[dict[int, Hashable]] = [{} for _ in more]
    found: set[int] = set()
    names: list[tuple[str, str]] = []
    for number, index in enumerate(other.indices.tolist()):
        if number % _STEP == _STEP - 1 and not proceed(number, len(other)):
            break
        equal: Sequence[int] = by_first.get(first_of_other(index), ())
        for memory, property_, of_other in zip(known, more, more_of_other, strict=True):
            if not equal:
                break
            wanted = of_other(index)
            memory.update((it, property_(it)) for it in equal if it not in memory)
            equal = [it for it in equal if wanted is not None and memory[it] == wanted]
        for it in equal:
            if it not in found and len(names) < _NAMED:
                names.append((_printable(part.source, it), _printable(other.source, index)))
            found.add(it)
    return Copies(len(found), tuple(names))


def _printable(source: Source, index: int) -> str:
    return source.names[index].encode(errors="backslashreplace").decode()


def _properties(source: Source) -> tuple[_Property, ...]:
    """Return the properties to compare, the cheapest first; equal images agree in all."""
    if isinstance(source, ImageFiles):
        return _of_files(source)
    if isinstance(source, RemoteImages):
        return (lambda index: _listed(source, index),)
    if isinstance(source, PackedImages):
        return _of_packed(source)
    if isinstance(source, ArrayImages):
        return (lambda index: source.images[index].tobytes(),)
    return (lambda _: None,)


def _of_files(source: ImageFiles) -> tuple[_Property, ...]:
    def size(index: int) -> Hashable | None:
        try:
            return (source.folder / source.names[index]).stat().st_size or None
        except (OSError, ValueError):
            # Reading the image reports the fault.
            return None

    def content(index: int, *, sample: bool) -> Hashable | None:
        try:
            with open_regular(source.folder / source.names[index]) as file:
                if not sample:
                    return hash_stream(file)[0]
                file.seek(max(0, os.fstat(file.fileno()).st_size - _SAMPLE_BYTES) // 2)
                return hashlib.sha256(file.read(_SAMPLE_BYTES)).digest()
        except OSError:
            return None

    return (
        size,
        lambda index: content(index, sample=True),
        lambda index: content(index, sample=False),
    )


def _listed(source: RemoteImages, index: int) -> Hashable | None:
    place = int(source.places[index])
    if place == MISSING or not source.index.sizes[place]:
        return None
    return int(source.index.sizes[place]), source.index.marks[place]


def _of_packed(source: PackedImages) -> tuple[_Property, ...]:
    images = packed.open_packed(source.path, source.shape).images

    def content(index: int, shown: slice) -> Hashable:
        return hashlib.sha256(images[index].ravel()[shown].tobytes()).digest()

    middle = images[0].size // 2
    sample = slice(max(0, middle - _SAMPLE_VALUES // 2), middle + _SAMPLE_VALUES // 2)
    return lambda index: content(index, sample), lambda index: content(index, slice(None))
