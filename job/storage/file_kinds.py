"""Recognizes the kind of a file by its first bytes, for messages about files of a wrong kind."""

import codecs
import re

# Bytes that `kind_of` needs.
HEAD_BYTES = 512
GZIP, ZIP, TAR = "a gzip-compressed file", "a zip file", "a tar file"
EMPTY = "an empty file"
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
