"""Addresses of objects in S3, checked once."""

import re
from dataclasses import dataclass
from typing import Self

from job.errors import UsageError

SCHEME = "s3://"
# The names that AWS, MinIO and Ceph all take.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LONGEST_KEY_BYTES = 1024
# A slash may have been lost on the way: no folder of anybody's is named "s3:".
_ANY_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|s3:", re.IGNORECASE)
_USER = re.compile(r"([A-Za-z0-9+.-]+:/*)(?:[^/@]*|.*:.*)@", re.DOTALL)


def is_uri(text: str) -> bool:
    """Tell whether a text is meant as a URI, not as a path."""
    return _ANY_SCHEME.match(text) is not None


def without_secrets(text: str) -> str:
    """Return a URI without what must not be repeated: user, password and query (signatures)."""
    address, sign, _ = text.partition("?")
    return _USER.sub(r"\1...@", address) + (f"{sign}..." if sign else "")


@dataclass(frozen=True, order=True)
class S3Uri:
    """An object, or all objects below a prefix, in a bucket.

    Attributes:
        bucket: the bucket's name.
        key: the object's key, or a prefix without a slash at its end; empty for the whole bucket.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> Self:
        """Return what lies below by the name, which may hold slashes.

        Raises:
            UsageError: the name would lead elsewhere.
        """
        key = f"{self.key}/{name}" if self.key else name
        _check_key(f"{self} / {name!r}", key)
        return type(self)(self.bucket, key)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def below(self) -> str:
        """What the keys of all objects below begin with."""
        return f"{self.key}/" if self.key else ""


def parse(text: str) -> S3Uri:
    """Check an address such as ``s3://bucket/some/key``; a slash at its end does not count.

    Raises:
        UsageError: saying what is wrong with it.
    """
    told = without_secrets(text)
    shown = ascii(told if len(told) <= 100 else f"{told[:100]}...")
    if not text.startswith(SCHEME):
        meant = f"{SCHEME}{told[3:].lstrip('/')}" if told[:3].lower() == "s3:" else ""
        raise UsageError(
            f"{shown}: expected a URI that begins with {SCHEME}"
            + (f" (did you mean {meant[:100]!a}?)" if meant else ""),
            "Name the object as s3://BUCKET/KEY; the server goes into storage.endpoint_url or "
            "AWS_ENDPOINT_URL_S3.",
        )
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    if "@" in bucket:
        raise UsageError(
            f"{shown}: a URI holds no user name and no password",
            "Give credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile.",
        )
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        name = told.removeprefix(SCHEME).partition("/")[0][:100]
        raise UsageError(
            f"{shown}: {name!a} cannot be a bucket's name",
            "It has 3 to 63 small letters, digits, '-' and '.', and begins and ends with a letter "
            "or digit.",
        )
    if key:
        key = key.removesuffix("/")
        _check_key(shown, key)
    return S3Uri(bucket, key)


def _check_key(shown: str, key: str) -> None:
    """Refuse keys that would be another path on a disk, or another request in a URL."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"{shown}: a key has no empty part, and none that is '.' or '..'",
            "Write the key out, with single slashes.",
        )
    if any(sign in key for sign in "?#\\") or not key.isprintable():
        raise UsageError(
            f"{shown}: a key has no '?', '#' or '\\', and no sign that cannot be printed",
            "Leave out query strings such as ?versionId=...; the newest version is read.",
        )
    if len(key.encode("utf-8", "surrogatepass")) > _LONGEST_KEY_BYTES:
        raise UsageError(f"{shown}: a key has at most {_LONGEST_KEY_BYTES} bytes", "Shorten it.")
