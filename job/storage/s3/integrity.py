"""Whether what arrived from S3 is what the store holds."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import ObjectChanged, TransferFailed
from job.storage.digests import hash_file
from job.uri import S3Uri

_AGAIN = "Run the same command again; if it stays so, put the object there anew."


def md5_of(etag: str) -> str | None:
    """Return the MD5 that an ETag is, if it looks like one; None for those of parts."""
    text = etag.strip('"')
    return text if re.fullmatch("[0-9a-f]{32}", text) else None


def check(
    uri: S3Uri,
    content: bytes | Path,
    sha256: str | None,
    response: Mapping[str, Any],
    seen: set[str],
) -> bool:
    """Compare what arrived with its digest; a file that fails is removed.

    Returns:
        Whether a digest proves it. Otherwise there was none to compare with, or what looked like
        an MD5 was none: then its length at least must be known to be right.

    Args:
        uri: the object.
        content: what arrived, or the file that holds it.
        sha256: what its digest must be, if that is known to the caller.
        response: the answer, for the digests that it tells.
        seen: digests that did not fit before. Who gets the same twice got what the store holds.
    """
    wanted = sha256 or response.get("Metadata", {}).get("sha256")
    md5 = None if wanted else md5_of(response["ETag"])
    if not wanted and not md5:
        return False
    found = _digest("sha256" if wanted else "md5", content)
    if found == (wanted or md5):
        return True
    if md5 and found in seen:
        return False  # an ETag that stays another was no MD5, as where a store encrypts
    if isinstance(content, Path):
        content.unlink()
    if found in seen:
        raise ObjectChanged(f"{uri}: its SHA-256 is {found}, not {wanted}", _AGAIN)
    seen.add(found)
    raise TransferFailed(f"{uri}: the object arrived changed", _AGAIN)


def _digest(kind: str, content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.new(kind, content, usedforsecurity=False).hexdigest()
    return hash_file(content, kind)
