"""Parses and checks S3 URIs."""

import re
from dataclasses import dataclass
from typing import Self

from job.errors import UsageError

SCHEME = "s3://"
# Bucket names that AWS, MinIO and Ceph all accept.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
MAX_KEY_BYTES = 1024
# "s3:" with too few slashes is a typing error, not a folder name.
_ANY_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|s3:", re.IGNORECASE)
_USER = re.compile(r"([A-Za-z0-9+.-]+:/*)(?:[^/@]*|.*:.*)@", re.DOTALL)


def is_uri(text: str) -> bool:
    """Return whether a text is a URI, valid or not, and not a path."""
    return _ANY_SCHEME.match(text) is not None


def without_secrets(text: str) -> str:
    """Return a URI without its secrets: user, password and query (signatures)."""
    address, sign, _ = text.partition("?")
    return _USER.sub(r"\1...@", address) + (f"{sign}..." if sign else "")


def key_bytes(key: str) -> int:
    """Return the length of a key as S3 counts it, in bytes of UTF-8."""
    return len(key.encode("utf-8", "surrogatepass"))


def on_server(place: object, server: str) -> str:
    """Return the name of a place in S3 for messages.

    Args:
        place: an object, a prefix, or a text that names several.
        server: the URL of the server.
    """
    return f"{place} on {server}"


@dataclass(frozen=True, order=True)
class S3Uri:
    """An object, or all objects below a prefix, in a bucket.

    Attributes:
        bucket: name of the bucket.
        key: key of the object, or a prefix without trailing slash; empty for the whole bucket.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> Self:
        """Return the URI of a name below this prefix; the name may contain slashes.

        Raises:
            UsageError: the name is not valid in a key, for example ``..``.
        """
        key = f"{self.key}/{name}" if self.key else name
        _check_key(f"{self} / {name!r}", key)
        return type(self)(self.bucket, key)

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def below(self) -> str:
        """The prefix of the keys of all objects below this URI."""
        return f"{self.key}/" if self.key else ""


def parse(text: str) -> S3Uri:
    """Parse a URI such as ``s3://bucket/some/key``. A trailing slash is ignored.

    Raises:
        UsageError: the URI is invalid.
    """
    safe = without_secrets(text)
    excerpt = ascii(safe if len(safe) <= 100 else f"{safe[:100]}...")
    if not text.startswith(SCHEME):
        meant = f"{SCHEME}{safe[3:].lstrip('/')}" if safe[:3].lower() == "s3:" else ""
        raise UsageError(
            f"{excerpt}: expected a URI that starts with {SCHEME}"
            + (f" (did you mean {meant[:100]!a}?)" if meant else ""),
            "Write s3://BUCKET/KEY, and set the server in storage.endpoint_url or "
            "AWS_ENDPOINT_URL_S3.",
        )
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    if "@" in bucket:
        raise UsageError(
            f"{excerpt}: expected a URI without user name and password",
            "Set credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile.",
        )
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        name = safe.removeprefix(SCHEME).partition("/")[0][:100]
        raise UsageError(
            f"{excerpt}: {name!a} is not a valid bucket name",
            "Use 3 to 63 lower-case letters, digits, '-' and '.'; start and end with a letter or "
            "digit.",
        )
    if key:
        key = key.removesuffix("/")
        _check_key(excerpt, key)
    return S3Uri(bucket, key)


def _check_key(excerpt: str, key: str) -> None:
    """Check that a key is also valid as a path on disk and in the URL of a request."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"{excerpt}: no part of a key may be empty, '.' or '..'",
            "Write the full key with single slashes.",
        )
    if any(character in key for character in "?#\\") or not key.isprintable():
        raise UsageError(
            f"{excerpt}: a key must not contain '?', '#', '\\' or unprintable characters",
            "Omit query strings such as ?versionId=...; the newest version is read.",
        )
    if (length := key_bytes(key)) > MAX_KEY_BYTES:
        raise UsageError(
            f"{excerpt}: a key must not be longer than {MAX_KEY_BYTES} bytes, found {length}",
            "Shorten the key.",
        )
