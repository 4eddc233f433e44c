"""Read, write and list objects in S3-compatible storage, with retries and checksums.

Only requests that every S3-compatible store supports are used: no conditional writes, no checksum
algorithms, nothing specific to AWS. Content is verified with the SHA-256 that the caller passes or
that the object's metadata contains (uploads of this module add it). Otherwise it is verified with
the ETag, if the ETag is an MD5. The ETag of each response is compared with the requested one,
because some stores ignore ``If-Match``.
"""

import glob
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from job.errors import ObjectChanged, ObjectDamaged, TransferFailed
from job.storage.files import replace_file
from job.storage.parallel import each
from job.storage.s3.integrity import check, md5_of
from job.storage.s3.responses import (
    S3Object,
    check_version,
    described_object,
    etag_of,
    extent_of,
    is_encrypted,
    is_whole,
    length_of,
    listed_folders,
    listed_objects,
    pinned,
    same_etag,
    server_of,
    wrong_response,
)
from job.storage.s3.retry import Retry
from job.storage.s3.upload import Upload
from job.uri import S3Uri, on_server

_BLOCK_BYTES = 1 << 20
# HTTP status of HEAD for expired tokens, wrong regions, wrong clocks and missing buckets.
_UNEXPLAINED = (400, 403, 404)
_THREADS = 4
# Digits of the checksum of an ETag in the name of a partial download.
_MARK = 16
_AGAIN = "Run the same command again. If it fails again, upload the object again."


class ObjectStore:
    """Objects by URI; threads may share it.

    Args:
        client: see :func:`job.storage.s3.client.make_client`.
        retry: number and pauses of the attempts.
        get: reads an object or a range for :meth:`read` and :meth:`read_range`. The default is
            ``client.get_object``; :class:`job.storage.s3.fast_get.FastGet` is faster.

    Attributes:
        server: the URL of the server, for messages.
    """

    def __init__(
        self,
        client: Any,
        retry: Retry | None = None,
        get: Callable[..., Mapping[str, Any]] | None = None,
    ) -> None:
        self.client = client
        self.server = server_of(client)
        self.retry = replace(retry or Retry(), server=self.server)
        self._get = get or client.get_object

    def retrying(self, seconds: float) -> Self:
        """Return the same store with a shorter time budget for retries."""
        retry = replace(self.retry, budget_seconds=min(seconds, self.retry.budget_seconds))
        return type(self)(self.client, retry, self._get)

    def head(self, uri: S3Uri) -> S3Object:
        """Describe an object.

        Raises:
            ObjectMissing: the object does not exist.
            StorageError: the bucket does not exist, or another failure; every method can raise it.
        """
        # The requests are retried separately. A server that closes the connection behind a response
        # without a size can break the GET. After a second HEAD, it would break it again.
        response = self._call(uri, self._head) or self._call(uri, self._head_by_get)
        return described_object(uri, response, self.server)

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
            length: the expected size in bytes.
            sha256: the expected SHA-256.
            etag: the expected ETag.

        Raises:
            ObjectMissing: the object does not exist.
            ObjectChanged: the ETag does not match.
            ObjectDamaged: the same wrong checksum was received twice.
        """
        seen: set[str] = set()

        def attempt() -> bytes:
            response = self._get(**_of(uri), **pinned(etag))
            with closing(response["Body"]):
                check_version(uri, response, etag, self.server)
                sent = length_of(uri, response, self.server)
                content = _body(response)
            incomplete = TransferFailed(f"{uri}: the received object is incomplete", _AGAIN)
            expected = sent if length is None else length
            if expected is not None and len(content) != expected:
                raise incomplete
            # A truncated response can have a matching Content-Length.
            try:
                sums = self._expected(uri, sha256, response)
                proven = check(self._place(uri), content, *sums, seen)
            except ObjectDamaged:
                if length is None and len(content) != self.head(uri).bytes:
                    raise incomplete from None
                raise
            if not proven and length is None and len(content) != self.head(uri).bytes:
                raise incomplete
            return content

        return self.retry.call(uri, attempt)

    def read_range(
        self,
        uri: S3Uri,
        start: int,
        length: int,
        *,
        etag: str | None = None,
        sha256: str | None = None,
    ) -> bytes:
        """Return ``length`` bytes from ``start``, or fewer if the object ends before.

        Args:
            uri: the object.
            start: the first byte.
            length: the number of bytes.
            etag: the expected ETag.
            sha256: the expected SHA-256 of the range.

        Raises:
            ObjectMissing: the object does not exist.
            ObjectChanged: the ETag does not match.
            ObjectDamaged: the same wrong SHA-256 was received twice.
            StorageError: the object ends before ``start``, the server ignores the header Range, or
                another failure.
        """
        seen: set[str] = set()

        def attempt() -> bytes:
            extent = f"bytes={start}-{start + length - 1}"
            response = self._get(**_of(uri), Range=extent, **pinned(etag))
            with closing(response["Body"]):
                check_version(uri, response, etag, self.server)
                # The body is read after this check, because it can be a whole large object.
                wanted = extent_of(uri, response, start, length, self.server)
                content = _body(response)
            if len(content) != wanted:
                raise TransferFailed(f"{uri}: the received object is incomplete", _AGAIN)
            if sha256:
                check(self._place(uri), content, sha256, None, seen)
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
        """Download an object under a temporary name, verify it, and rename it to ``path``.

        An interrupted download resumes, also in a later call. The received part is kept next to
        the file, under a name with a checksum of the ETag. Memory use is one block.

        Args:
            uri: the object.
            path: the file; its folder must exist.
            bytes: the expected size.
            sha256: the expected SHA-256; the default is the one in the object's metadata.
            etag: the expected ETag.

        Returns:
            The object.

        Raises:
            ObjectMissing: the object does not exist.
            ObjectChanged: ETag or size do not match, or the object changed during the download.
            ObjectDamaged: the same wrong checksum was received twice.
            OSError: the file cannot be written.
        """
        current = self.head(uri)
        if not same_etag(etag or current.etag, current.etag) or bytes not in (None, current.bytes):
            raise ObjectChanged(
                f"{uri}: found {current.bytes:,} bytes with ETag {current.etag}, expected "
                f"{'any size' if bytes is None else f'{bytes:,} bytes'} with ETag {etag or 'any'}",
                "The object was replaced. Upload the right object, or run the job again.",
            )
        part = _part(path, current.etag)
        seen: set[str] = set()

        def attempt() -> None:
            self._append(current, part)
            md5 = md5_of(current.etag) if current.is_md5 else None
            check(self._place(uri), part, sha256 or current.sha256, md5, seen)

        self.retry.call(uri, attempt, lambda: part.stat().st_size if part.exists() else 0)
        replace_file(part, path)
        for other in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * _MARK}.part"):
            other.unlink()
        return current

    def put(self, uri: S3Uri, content: bytes) -> None:
        """Write or replace an object in one request."""
        Upload(self.client, self.retry).small(uri, content)

    def upload(self, uri: S3Uri, path: Path, *, sha256: str, length: int) -> None:
        """Upload a file; a large file is uploaded in several parts at the same time.

        Args:
            uri: the object.
            path: the file; it may grow during the upload.
            sha256: the SHA-256 of its first ``length`` bytes; it is stored as metadata.
            length: how many bytes to upload.

        Raises:
            ObjectChanged: the SHA-256 of the file or, after several uploads, of the object differs.
        """
        Upload(self.client, self.retry).file(uri, path, sha256, length)

    def list(self, prefix: S3Uri, *, etags: bool = False) -> Iterator[S3Object]:
        """Yield the objects below a prefix, sorted by key.

        Args:
            prefix: the prefix.
            etags: whether each object must have an ETag.
        """
        for page in self._pages(prefix):
            yield from listed_objects(prefix, page, self.server, etags=etags)

    def level(self, prefix: S3Uri) -> Iterator[tuple[tuple[S3Uri, ...], tuple[S3Object, ...]]]:
        """Yield the folders and the objects directly below a prefix, for each page."""
        for page in self._pages(prefix, Delimiter="/"):
            folders = listed_folders(prefix, page, self.server)
            yield folders, tuple(listed_objects(prefix, page, self.server, etags=True))

    def directly_in(self, prefix: S3Uri) -> Iterator[S3Object]:
        """Yield the objects directly below a prefix, without the objects in its folders."""
        for page in self._pages(prefix, Delimiter="/"):
            yield from listed_objects(prefix, page, self.server, etags=True)

    def delete(self, uris: Sequence[S3Uri]) -> None:
        """Delete objects; missing ones are ignored."""
        each(self._delete, uris, _THREADS)

    def _append(self, entry: S3Object, part: Path) -> None:
        """Download the missing rest of an object; received bytes are kept after a failure."""
        with part.open("ab") as file:
            start = file.tell()
            if start > entry.bytes:
                start = file.seek(file.truncate(0))
            if start == entry.bytes:
                return
            response = self.client.get_object(
                **_of(entry.uri), **pinned(entry.etag), Range=f"bytes={start}-"
            )
            with closing(response["Body"]):
                check_version(entry.uri, response, entry.etag, self.server)
                if is_whole(response):
                    # The server ignores the header Range, so the download starts again.
                    file.seek(file.truncate(0))
                else:
                    extent_of(entry.uri, response, start, entry.bytes - start, self.server)
                for block in iter(lambda: response["Body"].read(_BLOCK_BYTES), b""):
                    file.write(block)
            if file.tell() != entry.bytes:
                raise TransferFailed(f"{entry.uri}: the received object is incomplete", _AGAIN)

    def abort_unfinished(self, prefix: S3Uri, ours: Callable[[str], bool]) -> int:
        """Abort incomplete multipart uploads below a prefix; returns their number.

        Args:
            prefix: the prefix.
            ours: returns for a key whether its upload may be aborted.
        """
        return Upload(self.client, self.retry).abort_unfinished(prefix, ours)

    def _expected(
        self, uri: S3Uri, sha256: str | None, response: Mapping[str, Any]
    ) -> tuple[str | None, str | None]:
        """Return the SHA-256 and the MD5 that content must have; None if unknown."""
        expected = sha256 or response.get("Metadata", {}).get("sha256")
        if expected or is_encrypted(response):
            return expected, None
        return None, md5_of(etag_of(uri, response, self.server))

    def _head(self, **of: str) -> Any:
        """Describe an object by HEAD; None if HEAD fails without a reason or has no size.

        A response to HEAD has no body, so only GET returns why the server rejects the request. A
        proxy that compresses responses removes the size from responses to HEAD.
        """
        try:
            response = self.client.head_object(**of)
        except self.client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in _UNEXPLAINED:
                raise
            return None
        return response if "ContentLength" in response else None

    def _head_by_get(self, **of: str) -> Any:
        """Describe an object by the headers of a GET."""
        response = self.client.get_object(**of)
        response["Body"].close()
        return response

    def _place(self, uri: S3Uri) -> str:
        """Return an object and its server, for messages."""
        return on_server(uri, self.server)

    def _delete(self, uri: S3Uri) -> None:
        self._call(uri, self.client.delete_object)

    def _call(self, uri: S3Uri, request: Callable[..., Any]) -> Any:
        return self.retry.call(uri, lambda: request(**_of(uri)))

    def _pages(self, prefix: S3Uri, **options: str) -> Iterator[Mapping[str, Any]]:
        """Yield the pages of a listing; each page is retried separately."""
        token: dict[str, str] = {}
        first = ""
        while True:
            page = self.retry.call(
                prefix,
                lambda token=token: self.client.list_objects_v2(  # type: ignore[misc]
                    Bucket=prefix.bucket, Prefix=prefix.below, **options, **token
                ),
            )
            start = _first(page)
            if token and start and start == first:
                raise wrong_response(
                    prefix, self.server, "the server repeats the first page of the listing"
                )
            first = first or start
            yield page
            if not page.get("IsTruncated"):
                return
            following = page.get("NextContinuationToken")
            if not following or following == token.get("ContinuationToken"):
                raise wrong_response(
                    prefix, self.server, "the listing is truncated but has no new token"
                )
            token = {"ContinuationToken": following}


def _first(page: Mapping[str, Any]) -> str:
    """Return the first key or folder of a page; empty if the page is empty."""
    entries = [entry.get("Key", "") for entry in page.get("Contents", ())[:1]]
    entries += [entry.get("Prefix", "") for entry in page.get("CommonPrefixes", ())[:1]]
    return min(entries, default="")


def _part(path: Path, etag: str) -> Path:
    """Return the path of a partial download."""
    mark = hashlib.sha256(etag.encode()).hexdigest()[:_MARK]
    return path.with_name(f".{path.name}.{mark}.part")


def _of(uri: S3Uri) -> dict[str, str]:
    return {"Bucket": uri.bucket, "Key": uri.key}


def _body(response: Mapping[str, Any]) -> bytes:
    return bytes(response["Body"].read())
