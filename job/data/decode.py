"""Decode one image file.

EXIF orientation is ignored, as in the usual ImageNet tools: pixels are used as stored.
"""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from job.data import png
from job.data.transforms import Pixels
from job.errors import DataError
from job.storage.files import open_regular

MAX_PIXELS = 64_000_000
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
# Only plain bitmap formats: other decoders start programs (EPS) or have had many vulnerabilities.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
COLOUR_MODES = {1: "L", 3: "RGB"}

# All exception types that Pillow's decoders have raised on damaged files.
_DECODE_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_LONGEST_REASON = 160
# An uncompressed RGBA image of MAX_PIXELS.
_LARGEST_REPAIRED = 4 * MAX_PIXELS


class UnreadableImageError(DataError):
    """One image cannot be used; ``reason`` is the message without the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(path: Path, channels: int, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Read an image file.

    Args:
        path: the file; its content determines the format.
        channels: 1 for gray, 3 for RGB.
        max_pixels: larger images are rejected before their pixels are decoded.

    Returns:
        uint8 ``[height, width, channels]``.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated, not an image, or too large.
    """
    try:
        with _open(path) as file:
            return _decoded_or_repaired(file, channels, max_pixels)
    except _DECODE_FAULTS as error:
        raise UnreadableImageError(_reason(error)) from error


def decode_content(content: bytes, channels: int) -> Pixels:
    """Read an image file's content; see :func:`decode` for result and errors."""
    if not content:
        raise UnreadableImageError("the file is empty")
    try:
        return _decoded_or_repaired(io.BytesIO(content), channels, MAX_PIXELS)
    except _DECODE_FAULTS as error:
        raise UnreadableImageError(_reason(error)) from error


def _decoded_or_repaired(file: BinaryIO, channels: int, max_pixels: int) -> Pixels:
    try:
        return _decoded(file, channels, max_pixels)
    except _DECODE_FAULTS:
        file.seek(0)
        if file.read(len(png.SIGNATURE)) != png.SIGNATURE:
            raise
        file.seek(0)
        content = file.read(_LARGEST_REPAIRED)
        repaired = png.without_damaged_extras(content)
        if len(repaired) == len(content):
            raise
        return _decoded(io.BytesIO(repaired), channels, max_pixels)


def _decoded(file: BinaryIO, channels: int, max_pixels: int) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image, max_pixels)
            return _pixels(image, channels)


def _open(path: Path) -> BinaryIO:
    file = open_regular(path)
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise UnreadableImageError("the file is empty")
    return file


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"{width}x{height} pixels exceed the limit of {max_pixels:,} pixels"
        )


def _pixels(image: Image.Image, channels: int) -> Pixels:
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit gray at 255, so the high byte is used.
        high_byte = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        image = Image.fromarray(high_byte)
    elif image.mode in ("I", "F"):
        raise UnreadableImageError(f"pixel mode {image.mode!r} has no defined brightness range")
    pixels = np.asarray(image.convert(COLOUR_MODES[channels]), dtype=np.uint8)
    return pixels.reshape(pixels.shape[0], pixels.shape[1], channels)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a known format ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or os.strerror(error.errno)
    text = " ".join(str(error).split()) or type(error).__name__
    return f"cannot be decoded: {text}"[:_LONGEST_REASON]
