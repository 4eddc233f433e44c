"""Verify checksums of objects that were read from S3."""

import hashlib
import re
from pathlib import Path

from job.errors import ChecksumDiffers, ObjectDamaged
from job.storage.digests import hash_file

_AGAIN = "Run the same command again. If it fails again, upload the object again."


def md5_of(etag: str) -> str | None:
    """Return the MD5 in an ETag; None for the ETag of an upload in parts.

    The ETag of an encrypted object can look like an MD5; see
    :func:`job.storage.s3.responses.is_encrypted`.
    """
    text = etag.strip('"')
    return text if re.fullmatch("[0-9a-f]{32}", text) else None


def check(
    place: str, content: bytes | Path, sha256: str | None, md5: str | None, seen: set[str]
) -> bool:
    """Compare received content with its checksum; a file with another checksum is removed.

    Args:
        place: the object and its server, for messages.
        content: the received content, or the file that contains it.
        sha256: the expected SHA-256; None if unknown.
        md5: the expected MD5, which is used if the SHA-256 is unknown; None if unknown.
        seen: wrong checksums of earlier attempts. If a wrong checksum occurs twice, the transfer
            is intact, and the object in the store has this content.

    Returns:
        True if a checksum matches. False if none is known; the caller must then check the length.

    Raises:
        ChecksumDiffers: the checksum does not match; a retry may help.
        ObjectDamaged: the checksum does not match, with the same result for the second time.
    """
    expected, kind = (sha256, "sha256") if sha256 else (md5, "md5")
    if not expected:
        return False
    actual = _checksum(kind, content)
    if actual == expected:
        return True
    if isinstance(content, Path):
        content.unlink()
    if actual in seen:
        name = "SHA-256" if sha256 else "MD5"
        raise ObjectDamaged(
            f"{place}: the content of the object does not match its checksum: {name} is {actual}, "
            f"expected {expected}",
            "Compare the object with its source; upload the object again if it differs. If it does "
            "not differ, the server or a proxy changes the content that it sends.",
        )
    seen.add(actual)
    raise ChecksumDiffers(f"{place}: the checksum of the received object does not match", _AGAIN)


def _checksum(kind: str, content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    return hash_file(content, kind)
