"""Objects in S3-compatible storage: read and written whole, tried again, checked.

Only requests that every S3-compatible store answers are made: no conditional writes, no checksum
algorithms, nothing of AWS alone. What is read is checked against the SHA-256 that the caller knows
or that the object's metadata holds (what this module uploads has it), else against its ETag where
that is an MD5.
"""

import glob
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from job.errors import ObjectChanged, TransferFailed
from job.storage.files import replace_file
from job.storage.parallel import each
from job.storage.s3.integrity import check
from job.storage.s3.retry import Retry
from job.storage.s3.upload import Upload
from job.uri import S3Uri

_BLOCK_BYTES = 1 << 20
_THREADS = 4
# Digits of the digest of an ETag, by which parts of different objects are told apart.
_MARK = 16
_AGAIN = "Run the same command again; if it stays so, put the object there anew."


@dataclass(frozen=True)
class S3Object:
    """An object as the store describes it.

    Attributes:
        uri: where it is.
        bytes: its size.
        etag: identifies its content, quotes included.
        modified: when it was put there, by the store's clock.
        sha256: as kept in its metadata; None for listed objects and those of other programs.
    """

    uri: S3Uri
    bytes: int
    etag: str
    modified: datetime
    sha256: str | None = None


@dataclass(frozen=True)
class Listing:
    """Objects below a prefix, and the store's clock when it listed them."""

    found: tuple[S3Object, ...]
    at: datetime


class ObjectStore:
    """Objects by URI; threads may share it.

    Args:
        client: as :func:`job.storage.s3.client.make_client` returns it.
        retry: how patiently.
        get: reads an object or a range for :meth:`read` and :meth:`read_range`, as
            ``client.get_object`` does; a :class:`job.storage.s3.fast_get.FastGet` for many.
    """

    def __init__(
        self,
        client: Any,
        retry: Retry | None = None,
        get: Callable[..., Mapping[str, Any]] | None = None,
    ) -> None:
        self.client = client
        self.retry = retry or Retry()
        self._get = get or client.get_object

    def head(self, uri: S3Uri) -> S3Object:
        """Describe an object.

        Raises:
            ObjectMissing: there is none; or no bucket: the answer does not tell.
            StorageError: as every method may.
        """
        return _found(uri, self._ask(uri, self.client.head_object))

    def read(
        self,
        uri: S3Uri,
        *,
        length: int | None = None,
        sha256: str | None = None,
        etag: str | None = None,
    ) -> bytes:
        """Return an object's whole content.

        Args:
            uri: the object.
            length: what its size must be.
            sha256: what its digest must be.
            etag: what its ETag must be.

        Raises:
            ObjectMissing: there is no such object.
            ObjectChanged: its ETag is another, or its digest is, time after time.
        """
        seen: set[str] = set()

        def attempt() -> bytes:
            response = self._get(**_of(uri), **_pinned(etag))
            content = _body(response)
            if len(content) != (response["ContentLength"] if length is None else length):
                raise TransferFailed(f"{uri}: the object arrived cut off", _AGAIN)
            proven = check(uri, content, sha256, response, seen)
            # A shorter answer may look whole.
            if not proven and length is None and len(content) != self.head(uri).bytes:
                raise TransferFailed(f"{uri}: the object arrived cut off", _AGAIN)
            return content

        return self.retry.call(uri, attempt)

    def read_range(self, uri: S3Uri, start: int, length: int, *, etag: str | None = None) -> bytes:
        """Return ``length`` bytes from ``start`` on; fewer only where the object ends.

        Raises:
            ObjectMissing: there is no such object.
            ObjectChanged: its ETag is another.
            StorageError: it ends before ``start``, among other things.
        """

        def attempt() -> bytes:
            extent = f"bytes={start}-{start + length - 1}"
            response = self._get(**_of(uri), Range=extent, **_pinned(etag))
            content = _body(response)
            first, last, whole = _extent(uri, response)
            wanted = min(length, whole - start)
            if first != start or last - first + 1 != wanted or len(content) != wanted:
                raise TransferFailed(f"{uri}: another range arrived than was asked for", _AGAIN)
            return content

        return self.retry.call(uri, attempt) if length > 0 else b""

    def download(
        self,
        uri: S3Uri,
        path: Path,
        *,
        bytes: int | None = None,
        sha256: str | None = None,
        etag: str | None = None,
    ) -> S3Object:
        """Put an object into a file, whole and checked or not at all.

        A broken transfer goes on where it stopped, also in a later call: what has arrived waits
        beside the file, under a name that holds the ETag. Nothing but one block is held in memory.

        Args:
            uri: the object.
            path: the file; its folder is there.
            bytes: what its size must be.
            sha256: what its digest must be; its metadata's if not given.
            etag: what its ETag must be.

        Raises:
            ObjectMissing: there is no such object.
            ObjectChanged: ETag, size or digest are others, or it changed meanwhile.
            OSError: the file cannot be written.
        """
        found = self.head(uri)
        if (etag or found.etag, found.bytes if bytes is None else bytes) != (
            found.etag,
            found.bytes,
        ):
            raise ObjectChanged(
                f"{uri}: it has {found.bytes:,} bytes and the ETag {found.etag}, not "
                f"{'any' if bytes is None else format(bytes, ',')} and {etag or 'any'}",
                "Something replaced it: put the right object there, or begin anew.",
            )
        part = _part(path, found.etag)
        seen: set[str] = set()

        def attempt() -> None:
            self._append(found, part)
            check(uri, part, sha256 or found.sha256, {"ETag": found.etag}, seen)

        self.retry.call(uri, attempt, lambda: part.stat().st_size if part.exists() else 0)
        replace_file(part, path)
        for other in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * _MARK}.part"):
            other.unlink()
        return found

    def put(self, uri: S3Uri, content: bytes) -> None:
        """Put an object there, whole or not at all; one that is there is replaced."""
        Upload(self.client, self.retry).small(uri, content)

    def upload(self, uri: S3Uri, path: Path, *, sha256: str, length: int) -> None:
        """Put a file there, in parts that go in parallel when it is long.

        Args:
            uri: where.
            path: the file; it may grow meanwhile.
            sha256: the digest of its first ``length`` bytes, which is kept as metadata.
            length: how much of it to put there.

        Raises:
            ObjectChanged: the file holds something else, or what arrives does, time after time.
        """
        Upload(self.client, self.retry).file(uri, path, sha256, length)

    def list(self, prefix: S3Uri) -> Iterator[S3Object]:
        """Yield the objects below a prefix, in the order of their keys."""
        for page in self._pages(prefix):
            yield from _listed(prefix, page)

    def folders(self, prefix: S3Uri) -> tuple[S3Uri, ...]:
        """Return what is directly below a prefix and has objects below itself."""
        found = [
            S3Uri(prefix.bucket, entry["Prefix"].removesuffix("/"))
            for page in self._pages(prefix, Delimiter="/")
            for entry in page.get("CommonPrefixes", ())
        ]
        return tuple(found)

    def directly_in(self, prefix: S3Uri) -> Iterator[S3Object]:
        """Yield the objects below a prefix that are in none of its folders."""
        for page in self._pages(prefix, Delimiter="/"):
            yield from _listed(prefix, page)

    def listing(self, prefix: S3Uri) -> Listing:
        """Return the objects below a prefix and the time by the store's own clock."""
        pages = list(self._pages(prefix))
        found = tuple(found for page in pages for found in _listed(prefix, page))
        return Listing(found, _date(prefix, pages[-1]))

    def delete(self, uris: Sequence[S3Uri]) -> None:
        """Remove objects; those that are not there do not matter."""
        each(self._delete, uris, _THREADS)

    def _append(self, found: S3Object, part: Path) -> None:
        """Fetch what is missing of a file; what arrives before a failure stays."""
        with part.open("ab") as file:
            start = file.tell()
            if start > found.bytes:
                file.truncate(0)
                start = 0
            if start == found.bytes:
                return
            response = self.client.get_object(
                **_of(found.uri), **_pinned(found.etag), Range=f"bytes={start}-"
            )
            if _extent(found.uri, response) != (start, found.bytes - 1, found.bytes):
                raise TransferFailed(
                    f"{found.uri}: another range arrived than was asked for", _AGAIN
                )
            for block in iter(lambda: response["Body"].read(_BLOCK_BYTES), b""):
                file.write(block)
            if file.tell() != found.bytes:
                raise TransferFailed(f"{found.uri}: the object arrived cut off", _AGAIN)

    def abort_unfinished(self, prefix: S3Uri, ours: Callable[[str], bool]) -> int:
        """Free what uploads hold that were never completed; returns how many there were.

        Args:
            prefix: where to look.
            ours: tells by its key whether an upload may be given up.
        """
        return Upload(self.client, self.retry).abort_unfinished(prefix, ours)

    def _delete(self, uri: S3Uri) -> None:
        self._ask(uri, self.client.delete_object)

    def _ask(self, uri: S3Uri, request: Callable[..., Any]) -> Any:
        return self.retry.call(uri, lambda: request(**_of(uri)))

    def _pages(self, prefix: S3Uri, **options: str) -> Iterator[Mapping[str, Any]]:
        """Yield the answers that list what is below a prefix; each is tried again by itself."""
        token: dict[str, str] = {}
        while True:
            page = self.retry.call(
                prefix,
                lambda token=token: self.client.list_objects_v2(  # type: ignore[misc]
                    Bucket=prefix.bucket, Prefix=prefix.below, **options, **token
                ),
            )
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}


def _part(path: Path, etag: str) -> Path:
    """Return where what has arrived of an object waits."""
    mark = hashlib.sha256(etag.encode()).hexdigest()[:_MARK]
    return path.with_name(f".{path.name}.{mark}.part")


def _of(uri: S3Uri) -> dict[str, str]:
    return {"Bucket": uri.bucket, "Key": uri.key}


def _body(response: Mapping[str, Any]) -> bytes:
    return bytes(response["Body"].read())


def _pinned(etag: str | None) -> dict[str, str]:
    return {"IfMatch": etag} if etag else {}


def _found(uri: S3Uri, response: Mapping[str, Any]) -> S3Object:
    return S3Object(
        uri,
        response["ContentLength"],
        response["ETag"],
        response["LastModified"],
        response.get("Metadata", {}).get("sha256"),
    )


def _listed(prefix: S3Uri, page: Mapping[str, Any]) -> Iterator[S3Object]:
    for entry in page.get("Contents", ()):
        uri = S3Uri(prefix.bucket, entry["Key"])
        yield S3Object(uri, entry["Size"], entry["ETag"], entry["LastModified"])


def _date(uri: S3Uri, response: Mapping[str, Any]) -> datetime:
    """Return the time at which the store answered."""
    text = response["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(text)
    except ValueError as error:
        raise TransferFailed(f"{uri}: the answer's date is {text!r}", _AGAIN) from error


def _extent(uri: S3Uri, response: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return first and last byte of an answer, and the object's size."""
    text = response.get("ContentRange", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", text)
    if match is None:
        raise TransferFailed(f"{uri}: the answer's range is {text!r}", _AGAIN)
    first, last, whole = map(int, match.groups())
    return first, last, whole
