"""Verify checksums of objects that were read from S3."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import ObjectChanged, TransferFailed
from job.storage.digests import hash_file
from job.uri import S3Uri

_AGAIN = "Run the same command again. If it fails again, upload the object again."


def md5_of(etag: str) -> str | None:
    """Return the MD5 in an ETag; None for the ETag of an upload in parts."""
    text = etag.strip('"')
    return text if re.fullmatch("[0-9a-f]{32}", text) else None


def check(
    uri: S3Uri,
    content: bytes | Path,
    sha256: str | None,
    response: Mapping[str, Any],
    seen: set[str],
) -> bool:
    """Compare received content with its checksum; a file with another checksum is removed.

    Args:
        uri: the object.
        content: the received content, or the file that contains it.
        sha256: the expected SHA-256; None if unknown.
        response: the response, whose metadata or ETag may contain a checksum.
        seen: wrong checksums of earlier attempts. If a wrong checksum occurs twice, the transfer
            is intact, and the object in the store has this content.

    Returns:
        True if a checksum matches. False if there is none, or if the ETag looks like an MD5 but is
        not; the caller must then check the length.

    Raises:
        TransferFailed: the checksum does not match; a retry may help.
        ObjectChanged: the SHA-256 does not match, for the second time.
    """
    expected = sha256 or response.get("Metadata", {}).get("sha256")
    md5 = None if expected else md5_of(response["ETag"])
    if not expected and not md5:
        return False
    actual = _checksum("sha256" if expected else "md5", content)
    if actual == (expected or md5):
        return True
    if md5 and actual in seen:
        return False  # not an MD5: stores that encrypt have other ETags
    if isinstance(content, Path):
        content.unlink()
    if actual in seen:
        raise ObjectChanged(f"{uri}: SHA-256 is {actual}, expected {expected}", _AGAIN)
    seen.add(actual)
    raise TransferFailed(f"{uri}: the checksum of the received object does not match", _AGAIN)


def _checksum(kind: str, content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    return hash_file(content, kind)
