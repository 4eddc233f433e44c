"""The packed binary format of PaddleSlim's INT8 tutorial (section 4.1), little-endian.

    int64    count
    float32  images, count x channels x height x width, preprocessed
    int64    labels, count

The format does not contain the shape of the images. Therefore a second file, the sidecar
``<file>.json``, contains the shape. The sidecar is optional. If it describes another file, the
packed file is rejected.
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
# 800 MB of labels. A sparse file could claim any number.
_MOST_IMAGES = 100_000_000
_PACK_AGAIN = (
    "Pack the images again. If the sidecar FILE.json describes another file, remove the sidecar."
)

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Packed:
    """An open packed file.

    Attributes:
        images: float32 ``[n, channels, height, width]``, memory-mapped, read-only.
        labels: int64 ``[n]``.
    """

    images: Floats
    labels: Ints


def sidecar(path: Path) -> Path:
    """Return the path of the sidecar of a packed file."""
    return path.with_name(path.name + ".json")


def write(
    path: Path, batches: Iterable[tuple[Floats, Ints]], *, shape: Shape, transform: str
) -> Mapping[str, Any]:
    """Write a packed file and its sidecar, with one batch in memory at a time.

    Args:
        path: the file. It is written under a temporary name, then renamed.
        batches: images, float32 ``[n, channels, height, width]``, and labels, int64 ``[n]``.
        shape: channels, height, width of every image.
        transform: a description of the preprocessing, for the sidecar.

    Returns:
        The sidecar's content: format, count, shape, dtype, transform, bytes, sha256.

    Raises:
        DataError: there is no image, or an image has another shape.
        OutputError: the file cannot be written.
    """
    # Only the writes are inside output_errors(), because the batches read other files.
    with atomic_write(path) as file:
        count = _write_body(file, path, batches, shape)
        with output_errors(path):
            file.seek(0)
            file.write(np.asarray([count], _COUNT).tobytes())
            # If this process is killed, an old sidecar must not stay beside the new file.
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
                f"{path}: expected {len(batch_labels)} images of {_text(shape)}, one per label, "
                f"found an array of shape {list(images.shape)}"
            )
        with output_errors(path):
            file.write(np.ascontiguousarray(images, _PIXEL).data)
        labels.append(batch_labels)
    if not sum(map(len, labels)):
        raise DataError(f"{path}: no image to write")
    joined = np.concatenate(labels)
    with output_errors(path):
        file.write(joined.astype(_LABEL).tobytes())
    return len(joined)


def open_packed(path: Path, shape: Shape) -> Packed:
    """Memory-map a packed file after checking its size, its header and its sidecar.

    Args:
        path: the file.
        shape: channels, height, width of every image.

    Raises:
        DataError: the file is missing, empty, truncated, or its images have another shape.
    """
    count = _checked_count(path, shape)
    _check_sidecar(path, shape)
    images: Floats = np.memmap(path, _PIXEL, "r", offset=_COUNT.itemsize, shape=(count, *shape))
    offset = _COUNT.itemsize + count * _image_bytes(shape)
    labels = np.fromfile(path, _LABEL, count, offset=offset).astype(np.int64)
    return Packed(images=images, labels=labels)


def read_image(path: Path, shape: Shape, index: int) -> Floats:
    """Return one image, float32 ``[channels, height, width]``, of a file that was checked.

    Args:
        path: a file that ``open_packed`` checked.
        shape: channels, height, width.
        index: number of the image.

    Raises:
        DataError: the file has become shorter.
    """
    offset = _COUNT.itemsize + index * _image_bytes(shape)
    values = np.fromfile(path, _PIXEL, math.prod(shape), offset=offset)
    if values.size != math.prod(shape):
        raise DataError(
            f"{path}: image {index} is missing, because the file has become shorter",
            "Do not change inputs while a run reads them.",
        )
    return values.reshape(shape).astype(np.float32, copy=False)


def read_sidecar(path: Path) -> Mapping[str, Any] | None:
    """Return the content of a packed file's sidecar; None if there is no sidecar.

    Raises:
        DataError: the sidecar cannot be read, or has no shape or size.
    """
    description_file = sidecar(path)
    try:
        with open_regular(description_file) as file:
            description = json.loads(file.read(_LONGEST_SIDECAR))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {description_file}: {error}", _PACK_AGAIN) from error
    known = description if isinstance(description, dict) else {}
    if not isinstance(known.get("shape"), list) or not isinstance(known.get("bytes"), int):
        raise DataError(
            f"{description_file}: expected the keys shape (a list) and bytes (a number)",
            _PACK_AGAIN,
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
            "Pack the images for this model, or use the model that they were packed for.",
        )
    if description["bytes"] != path.stat().st_size:
        raise DataError(
            f"{path}: expected {description['bytes']:,} bytes as in {sidecar(path).name}, "
            f"found {path.stat().st_size:,}",
            _PACK_AGAIN,
        )


def _checked_count(path: Path, shape: Shape) -> int:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(_COUNT.itemsize)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "Check the path.") from error
    if len(header) < _COUNT.itemsize:
        raise DataError(
            f"{path}: expected an int64 count at the start, found a file of {size} bytes",
            "Use a packed file: an int64 count, then float32 images, then int64 labels.",
        )
    count = int(np.frombuffer(header, _COUNT)[0])
    if count < 1:
        raise DataError(f"{path}: expected at least 1 image in the header, found {count}")
    if size == _expected_bytes(count, shape) and count > _MOST_IMAGES:
        raise DataError(f"{path}: expected at most {_MOST_IMAGES:,} images, found {count:,}")
    expected = _expected_bytes(count, shape)
    if size != expected:
        raise DataError(
            f"{path}: expected {expected:,} bytes for the header's {count:,} images of "
            f"{_text(shape)} with their labels, found {size:,}",
            _size_hint(size, count, shape[0]),
        )
    return count


def _size_hint(size: int, count: int, channels: int) -> str:
    pixels, rest = divmod(size - _COUNT.itemsize - count * _LABEL.itemsize, count * channels * 4)
    side = math.isqrt(max(pixels, 0))
    if rest == 0 and side > 0 and side * side == pixels:
        return (
            f"The size matches images of {_text((channels, side, side))}; check model.input_shape."
        )
    return "Check that the file is a packed file of this image shape and not truncated."


def _expected_bytes(count: int, shape: Shape) -> int:
    return _COUNT.itemsize + count * (_image_bytes(shape) + _LABEL.itemsize)


def _image_bytes(shape: Shape) -> int:
    return math.prod(shape) * _PIXEL.itemsize


def _text(shape: Iterable[object]) -> str:
    return "x".join(map(str, shape))
