"""Read the fields of S3 responses, also of servers that leave fields out."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from job.errors import ObjectChanged, StorageError, TransferFailed
from job.uri import S3Uri, on_server, without_secrets

# The names of headers that boto3 calls otherwise. LastModified is also an element of listings.
_HEADERS = {"ContentLength": "header Content-Length"}
_AGAIN = "Run the same command again. If it fails again, upload the object again."


@dataclass(frozen=True)
class S3Object:
    """An object as the store describes it.

    Attributes:
        uri: bucket and key.
        bytes: its size.
        etag: identifies its content; includes the quotes.
        modified: when it was written, by the store's clock.
        sha256: the checksum in its metadata; None for listed objects and for objects that other
            programs wrote.
        is_md5: False if the ETag is not the MD5 of the content, because the object is encrypted.
    """

    uri: S3Uri
    bytes: int
    etag: str
    modified: datetime
    sha256: str | None = None
    is_md5: bool = True


def server_of(client: Any) -> str:
    """Return the URL of a client's server without credentials, for messages."""
    return without_secrets(str(client.meta.endpoint_url))


def wrong_response(uri: S3Uri, server: str, what: str) -> StorageError:
    """Return the error for a response that no S3 server should send.

    Args:
        uri: the requested object or prefix.
        server: the URL of the server.
        what: what is wrong with the response.
    """
    return StorageError(
        f"{on_server(uri, server)}: {what}",
        "Check that storage.endpoint_url, or AWS_ENDPOINT_URL_S3, is the URL of an S3 server, and "
        "that no proxy changes its responses.",
    )


def field_of(uri: S3Uri, response: Mapping[str, Any], name: str, server: str) -> Any:
    """Return a field of a response, or of an entry of a listing.

    Args:
        uri: the requested object or prefix.
        response: the response or the entry.
        name: the name of the field in boto3.
        server: the URL of the server.

    Raises:
        StorageError: the field is missing.
    """
    if name not in response:
        raise wrong_response(uri, server, f"the response has no {_HEADERS.get(name, name)}")
    return response[name]


def size_of(uri: S3Uri, response: Mapping[str, Any], name: str, server: str) -> int:
    """Return the size of an object in a response, or in an entry of a listing.

    Args:
        uri: the object.
        response: the response or the entry.
        name: the name of the field in boto3.
        server: the URL of the server.

    Raises:
        StorageError: the field is missing or invalid.
    """
    size = field_of(uri, response, name, server)
    if type(size) is not int or size < 0:
        raise wrong_response(
            uri,
            server,
            f"{_HEADERS.get(name, name)}: expected a number of bytes, found {str(size)[:50]!r}",
        )
    return size


def time_of(uri: S3Uri, response: Mapping[str, Any], server: str) -> datetime:
    """Return when an object in a response, or in an entry of a listing, was written.

    Raises:
        StorageError: the field is missing or invalid.
    """
    time = field_of(uri, response, "LastModified", server)
    if not isinstance(time, datetime):
        raise wrong_response(uri, server, f"LastModified: expected a time, found {time[:50]!r}")
    return time


def length_of(uri: S3Uri, response: Mapping[str, Any], server: str) -> int | None:
    """Return the length of the body of a response; None for a response in chunks.

    Raises:
        StorageError: the header Content-Length is invalid.
    """
    name = "ContentLength"
    return size_of(uri, response, name, server) if name in response else None


def etag_of(uri: S3Uri, response: Mapping[str, Any], server: str) -> str:
    """Return the ETag of a response.

    Raises:
        StorageError: the response has no ETag.
    """
    etag = str(response.get("ETag") or "")
    if not etag:
        raise wrong_response(uri, server, "the response has no ETag")
    return etag


def check_version(uri: S3Uri, response: Mapping[str, Any], etag: str | None, server: str) -> None:
    """Compare the ETag of a response with the requested one, because servers ignore If-Match.

    Raises:
        ObjectChanged: the response is about another version of the object.
        StorageError: the response has no ETag.
    """
    if etag is None:
        return
    found = etag_of(uri, response, server)
    if not same_etag(found, etag):
        raise ObjectChanged(
            f"{on_server(uri, server)}: the object changed while it was read: "
            f"found ETag {found}, expected {etag}",
            "Run the same command again.",
        )


def same_etag(one: str, other: str) -> bool:
    """Return whether two ETags name the same version of an object.

    A server can leave out the quotes in a listing or in a header. A proxy that compresses responses
    marks their ETags as weak.
    """
    return one.removeprefix("W/").strip('"') == other.removeprefix("W/").strip('"')


def pinned(etag: str | None) -> Mapping[str, str]:
    """Return the condition of a request for one version of an object.

    A weak ETag never satisfies If-Match. An ETag without quotes is not valid in this header. Then
    only :func:`check_version` compares the versions.
    """
    return {"IfMatch": etag} if etag and etag[0] == etag[-1] == '"' else {}


def is_encrypted(response: Mapping[str, Any]) -> bool:
    """Return whether a response states that the ETag is not an MD5 (SSE-KMS, SSE-C)."""
    return bool(
        str(response.get("ServerSideEncryption") or "").startswith("aws:kms")
        or response.get("SSECustomerAlgorithm")
    )


def described_object(uri: S3Uri, response: Mapping[str, Any], server: str) -> S3Object:
    """Return the object that the response to HEAD describes.

    Raises:
        StorageError: the response has no ETag, size or time, or an invalid size or time.
    """
    return S3Object(
        uri,
        size_of(uri, response, "ContentLength", server),
        etag_of(uri, response, server),
        time_of(uri, response, server),
        response.get("Metadata", {}).get("sha256"),
        not is_encrypted(response),
    )


def listed_objects(
    prefix: S3Uri, page: Mapping[str, Any], server: str, *, etags: bool
) -> Iterator[S3Object]:
    """Yield the objects in a page of a listing.

    Args:
        prefix: the prefix that was listed.
        page: the response.
        server: the URL of the server.
        etags: whether each object must have an ETag. rclone lists an object that is being replaced
            without an ETag.

    Raises:
        StorageError: an object has no key, size, time or ETag, an invalid size or time, or is not
            below the prefix.
    """
    for entry in page.get("Contents", ()):
        uri = S3Uri(prefix.bucket, field_of(prefix, entry, "Key", server))
        if not uri.key.startswith(prefix.below):
            raise wrong_response(
                prefix, server, f"the listing contains another prefix: {uri.key[:200]!a}"
            )
        etag = etag_of(uri, entry, server) if etags else str(entry.get("ETag") or "")
        size = size_of(uri, entry, "Size", server)
        yield S3Object(uri, size, etag, time_of(uri, entry, server))


def listed_folders(prefix: S3Uri, page: Mapping[str, Any], server: str) -> tuple[S3Uri, ...]:
    """Return the folders in a page of a listing.

    Raises:
        StorageError: a folder has no name.
    """
    names = (field_of(prefix, each, "Prefix", server) for each in page.get("CommonPrefixes", ()))
    return tuple(S3Uri(prefix.bucket, name.removesuffix("/")) for name in names)


def is_whole(response: Mapping[str, Any]) -> bool:
    """Return whether a response to a request for a range contains the whole object.

    A server can ignore the header Range, also only if the range is the whole object.
    """
    return not response.get("ContentRange")


def extent_of(uri: S3Uri, response: Mapping[str, Any], start: int, length: int, server: str) -> int:
    """Return how many bytes a response to a request for a range must contain.

    Args:
        uri: the object.
        response: the response.
        start: the first requested byte.
        length: the number of requested bytes; the object may end before.
        server: the URL of the server.

    Raises:
        TransferFailed: the response contains another range.
        StorageError: the server ignores the header Range, or the response does not state the range.
    """
    if is_whole(response):
        whole = length_of(uri, response, server)
        if start or whole is None or whole > length:
            raise wrong_response(uri, server, "the server ignores the header Range")
        return whole
    text = response["ContentRange"]
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text)
    if match is None:
        raise wrong_response(uri, server, f"cannot read Content-Range {text[:100]!r}")
    first, last, whole = map(int, match.groups())
    wanted = min(length, whole - start)
    if first != start or last - first + 1 != wanted:
        raise TransferFailed(f"{uri}: the server returned another range than requested", _AGAIN)
    return wanted
