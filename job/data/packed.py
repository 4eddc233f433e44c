"""The tutorial's packed binary format (section 4.1), little-endian.

    int64    count
    float32  images, count x channels x height x width, preprocessed
    int64    labels, count

The format says nothing about the images' shape, so a sidecar ``<file>.json`` describes it. A file
without one is read all the same; one with another's is refused.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from job.data.transforms import Floats, Ints
from job.errors import DataError
from job.storage.digests import hash_file
from job.storage.files import atomic_write, open_regular, output_errors, write_json

_COUNT = np.dtype("<i8")
_PIXEL = np.dtype("<f4")
_LABEL = np.dtype("<i8")
_LONGEST_SIDECAR = 1 << 16
# 800 MB of labels; a file of holes could claim any number.
_MOST_IMAGES = 100_000_000
_PACK_AGAIN = "Pack the images again, or remove the sidecar if it belongs to another file."

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Packed:
    """An open packed file.

    Attributes:
        images: float32 ``[n, channels, height, width]``, mapped, read-only.
        labels: int64 ``[n]``.
    """

    images: Floats
    labels: Ints


def sidecar(path: Path) -> Path:
    """The description that belongs to a packed file."""
    return path.with_name(path.name + ".json")


def write(
    path: Path, batches: Iterable[tuple[Floats, Ints]], *, shape: Shape, transform: str
) -> Mapping[str, Any]:
    """Write a packed file and its sidecar, holding one batch in memory at a time.

    Args:
        path: where the file appears, complete, by one rename.
        batches: pairs of float32 ``[n, channels, height, width]`` and int64 ``[n]``.
        shape: channels, height, width of every image.
        transform: one sentence for the sidecar on how the images were made.

    Returns:
        The sidecar's content: format, count, shape, dtype, transform, bytes, sha256.

    Raises:
        DataError: no image came, or one of another shape.
        OutputError: the file cannot be written.
    """
    # Not inside `output_errors` as a whole: the batches read files, whose faults are not ours.
    with atomic_write(path) as file:
        count = _write_body(file, path, batches, shape)
        with output_errors(path):
            file.seek(0)
            file.write(np.asarray([count], _COUNT).tobytes())
            # A kill between the two renames must not leave an old description beside a new file.
            sidecar(path).unlink(missing_ok=True)
    description = {
        "format": "packed",
        "count": count,
        "shape": list(shape),
        "dtype": "float32",
        "transform": transform,
        "bytes": path.stat().st_size,
        "sha256": hash_file(path),
    }
    write_json(sidecar(path), description)
    return description


def _write_body(
    file: BinaryIO, path: Path, batches: Iterable[tuple[Floats, Ints]], shape: Shape
) -> int:
    labels: list[Ints] = []
    with output_errors(path):
        file.write(bytes(_COUNT.itemsize))
    for images, batch_labels in batches:
        if images.shape != (len(batch_labels), *shape):
            raise DataError(
                f"{path}: expected images of {_text(shape)} and as many labels, found "
                f"{list(images.shape)} and {len(batch_labels)} labels"
            )
        with output_errors(path):
            file.write(np.ascontiguousarray(images, _PIXEL).data)
        labels.append(batch_labels)
    if not sum(map(len, labels)):
        raise DataError(f"{path}: there is no image to write")
    joined = np.concatenate(labels)
    with output_errors(path):
        file.write(joined.astype(_LABEL).tobytes())
    return len(joined)


def open_packed(path: Path, shape: Shape) -> Packed:
    """Map a packed file after checking its size against its header, and its sidecar if it has one.

    Args:
        path: the file.
        shape: channels, height, width that every image has.

    Raises:
        DataError: missing, empty, truncated, or of another shape.
    """
    count = _checked_count(path, shape)
    _check_sidecar(path, shape)
    images: Floats = np.memmap(path, _PIXEL, "r", offset=_COUNT.itemsize, shape=(count, *shape))
    offset = _COUNT.itemsize + count * _image_bytes(shape)
    labels = np.fromfile(path, _LABEL, count, offset=offset).astype(np.int64)
    return Packed(images=images, labels=labels)


def read_image(path: Path, shape: Shape, index: int) -> Floats:
    """One image, float32 ``[channels, height, width]``, of a file that ``open_packed`` checked."""
    offset = _COUNT.itemsize + index * _image_bytes(shape)
    values = np.fromfile(path, _PIXEL, math.prod(shape), offset=offset)
    if values.size != math.prod(shape):
        raise DataError(f"{path}: image {index} is missing; the file has become shorter")
    return values.reshape(shape).astype(np.float32, copy=False)


def read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """The description beside a packed file, as ``write`` returned it; None if there is none.

    Raises:
        DataError: it cannot be read, or is no such description.
    """
    follower_stage = sidecar(path)
    try:
        with open_regular(follower_stage) as file:
            description = json.loads(file.read(_LONGEST_SIDECAR))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{follower_stage}: cannot be read: {error}", _PACK_AGAIN) from error
    known = description if isinstance(description, dict) else {}
    if not isinstance(known.get("shape"), list) or not isinstance(known.get("bytes"), int):
        raise DataError(
            f"{follower_stage}: does not tell the shape and the bytes of a file", _PACK_AGAIN
        )
    return known


def _check_sidecar(path: Path, shape: Shape) -> None:
    description = read_sidecar(path)
    if description is None:
        return
    if description["shape"] != list(shape):
        raise DataError(
            f"{path}: expected images of {_text(shape)}, found {_text(description['shape'])[:80]} "
            f"in {sidecar(path).name}",
            "Pack the images for this model, or give the model that they were packed for.",
        )
    if description["bytes"] != path.stat().st_size:
        raise DataError(
            f"{path}: {sidecar(path).name} describes a file of {description['bytes']:,} bytes, "
            f"found {path.stat().st_size:,}",
            _PACK_AGAIN,
        )


def _checked_count(path: Path, shape: Shape) -> int:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(_COUNT.itemsize)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if len(header) < _COUNT.itemsize:
        raise DataError(
            f"{path}: expected an int64 count first, found a file of {size} bytes",
            "A packed file holds an int64 count, float32 images, int64 labels.",
        )
    count = int(np.frombuffer(header, _COUNT)[0])
    if count < 1:
        raise DataError(f"{path}: the header says {count} images; at least 1 is needed")
    if size == _expected_bytes(count, shape) and count > _MOST_IMAGES:
        raise DataError(f"{path}: {count:,} images; at most {_MOST_IMAGES:,} can be read")
    expected = _expected_bytes(count, shape)
    if size != expected:
        raise DataError(
            f"{path}: expected {expected:,} bytes for the header's {count:,} images of "
            f"{_text(shape)} with their labels, found {size:,}",
            _size_hint(size, count, shape[0]),
        )
    return count


def _size_hint(size: int, count: int, channels: int) -> str:
    pixels, left = divmod(size - _COUNT.itemsize - count * _LABEL.itemsize, count * channels * 4)
    side = math.isqrt(max(pixels, 0))
    if left == 0 and side > 0 and side * side == pixels:
        return f"Its size fits images of {_text((channels, side, side))}: is the model's input so?"
    return "The file is truncated, of another image shape, or not a packed file."


def _expected_bytes(count: int, shape: Shape) -> int:
    return _COUNT.itemsize + count * (_image_bytes(shape) + _LABEL.itemsize)


def _image_bytes(shape: Shape) -> int:
    return math.prod(shape) * _PIXEL.itemsize


def _text(shape: Iterable[object]) -> str:
    return "x".join(map(str, shape))
