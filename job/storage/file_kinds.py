"""Recognizes the kind of a file by its content, for messages about files of a wrong kind."""

import codecs
import re
import zipfile
from pathlib import Path

from job.storage.files import open_regular

# Bytes that `kind_of` needs.
HEAD_BYTES = 512
GZIP, ZIP, TAR = "a gzip-compressed file", "a zip file", "a tar file"
EMPTY = "an empty file"
PADDLE_PROGRAM = "a Paddle program (.pdmodel)"
TORCH, SAFETENSORS, NPZ = "a PyTorch file", "a safetensors file", "a .npz file"
TORCH_LEGACY = "a PyTorch file in the legacy format"
ONNX = "an ONNX model"
_TAR_MAGIC_AT = 257
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", GZIP),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"BZh", "a bzip2-compressed file"),
    (b"\xfd7zXZ\x00", "an xz-compressed file"),
    (b"\x28\xb5\x2f\xfd", "a zstd-compressed file"),
    (b"\x04\x22\x4d\x18", "an lz4-compressed file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a .npy file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"%PDF", "a PDF file"),
    (b"\x7fELF", "a program"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)
# A legacy PyTorch file: a pickle of its magic number.
_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# A protobuf message: the first block of a program, or a version and a producer's name.
_PADDLE_PROGRAM = re.compile(rb"\x0a[\x80-\xff]{0,9}[\x00-\x7f]\x08\x00\x10")
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12[\x01-\x40][\x20-\x7e]")
_HTML = re.compile(rb"<(!doctype html|html|head|body|script)\b", re.IGNORECASE)
_XML = re.compile(rb"<\?xml|<[A-Za-z]+[ >]")


def kind_of(head: bytes) -> str:
    """Return the kind of a file, such as ``a zip file``; empty if it is not recognized.

    Args:
        head: the first ``HEAD_BYTES`` bytes, or the whole file if it is shorter.
    """
    if not head:
        return EMPTY
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return TAR
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if _HTML.match(text):
        return "an HTML page"
    if _XML.match(text):
        return "an XML document"
    if text.startswith((b"{", b"[")) and text.isascii():
        return "a JSON document"
    return ""


def model_kind_of(path: Path) -> str:
    """Return the kind of a file of weights, such as ``a Paddle program (.pdmodel)``; or empty.

    Empty also stands for a pickle, as in .pdparams files.

    Args:
        path: a file, also of a format that this job does not read.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(HEAD_BYTES)
    kind = kind_of(head)
    if kind == ZIP:
        return _kind_of_zip(path)
    if kind:
        return kind
    if head.startswith(_TORCH):
        return TORCH_LEGACY
    if _PADDLE_PROGRAM.match(head):
        return PADDLE_PROGRAM
    if _is_pdiparams(head):
        return "the weights of an inference model (.pdiparams)"
    if head[8:10] in (b'{"', b"{}") and head[6:8] == b"\0\0":
        return SAFETENSORS
    return ONNX if _ONNX.match(head) else ""


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as opened:
            names = opened.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ZIP
    if any(name.endswith("data.pkl") for name in names):
        return TORCH
    if names and all(name.endswith(".npy") for name in names):
        return NPZ
    return ZIP


def _is_pdiparams(head: bytes) -> bool:
    # Version, level-of-detail count and version are 0. The length and the message follow.
    return len(head) > 20 and not any(head[:16]) and head[16] < 128 and head[17:21] == b"\0\0\0\x08"
