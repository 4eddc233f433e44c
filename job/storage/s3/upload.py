"""Upload objects to S3: in one request, or in several parts at the same time."""

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from job.errors import ObjectChanged, StorageError, TransferFailed, UploadMissing
from job.storage.digests import hash_stream
from job.storage.parallel import each
from job.storage.s3.responses import etag_of, field_of, server_of
from job.storage.s3.retry import Retry
from job.uri import S3Uri

T = TypeVar("T")

# Memory per thread. S3 allows 10,000 parts of at least 5 MiB.
PART_BYTES = 8 << 20
_MOST_PARTS = 10_000
_THREADS = 4
# How many times a large file is uploaded if the uploaded object has another checksum.
_TIMES = 3
_AGAIN = "Run the same command again."


class Upload:
    """Uploads objects and verifies them.

    Each request has the MD5 of its body, which the store verifies. The ETag of the response is
    compared too. If it is not an MD5, as in encrypted buckets, the object is downloaded and
    compared.

    Args:
        client: see :class:`job.storage.s3.objects.ObjectStore`.
        retry: number and pauses of the attempts.
    """

    def __init__(self, client: Any, retry: Retry) -> None:
        self.client = client
        self.retry = retry

    def small(self, uri: S3Uri, content: bytes) -> None:
        """Write an object in one request."""
        sha256 = hashlib.sha256(content).hexdigest()
        md5 = _md5(content)

        def attempt() -> None:
            response = self.client.put_object(
                Bucket=uri.bucket,
                Key=uri.key,
                Body=content,
                ContentMD5=_base64(md5),
                Metadata={"sha256": sha256},
            )
            etag = etag_of(uri, response, server_of(self.client))
            if etag.strip('"') != md5.hex() and not self._holds(uri, sha256):
                raise TransferFailed(
                    f"{uri}: the checksum of the uploaded object does not match", _AGAIN
                )

        self.retry.call(uri, attempt)

    def file(self, uri: S3Uri, path: Path, sha256: str, length: int) -> None:
        """Upload the first ``length`` bytes of a file.

        Raises:
            ObjectChanged: these bytes, or the uploaded object, have another SHA-256.
            UploadMissing: the store has aborted several uploads of the file.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if length <= PART_BYTES:
                content = _read(descriptor, 0, length)
                if hashlib.sha256(content).hexdigest() != sha256:
                    raise _changed(path)
                self.small(uri, content)
            else:
                self._large(uri, path, descriptor, sha256, length)
        finally:
            os.close(descriptor)

    def abort_unfinished(self, prefix: S3Uri, ours: Callable[[str], bool]) -> int:
        """Abort incomplete multipart uploads below a prefix; returns their number.

        Args:
            prefix: the prefix.
            ours: returns for a key whether its upload may be aborted.
        """
        server = server_of(self.client)
        uploads = [
            (key, field_of(prefix, entry, "UploadId", server))
            for entry in self._unfinished(prefix)
            if ours(key := field_of(prefix, entry, "Key", server))
        ]
        for key, upload in uploads:
            self._abort(S3Uri(prefix.bucket, key), upload)
        return len(uploads)

    def _unfinished(self, prefix: S3Uri) -> Iterator[Mapping[str, Any]]:
        """Yield the incomplete multipart uploads below a prefix; a page has at most 1,000."""
        markers: dict[str, str] = {}
        while True:
            page = self.retry.call(
                prefix,
                lambda markers=markers: self.client.list_multipart_uploads(  # type: ignore[misc]
                    Bucket=prefix.bucket, Prefix=prefix.below, **markers
                ),
            )
            yield from page.get("Uploads", ())
            after = {
                "KeyMarker": page.get("NextKeyMarker", ""),
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }
            if not page.get("IsTruncated") or after == markers or not any(after.values()):
                return
            markers = after

    def _large(self, uri: S3Uri, path: Path, descriptor: int, sha256: str, length: int) -> None:
        """Upload a large file; see :meth:`file`.

        A lifecycle rule can abort an upload that lasts long, for example during an outage.
        """
        failure: StorageError = ObjectChanged(
            f"{uri}: the checksum of the uploaded object did not match {_TIMES} times", _AGAIN
        )
        for _ in range(_TIMES):
            try:
                if self._in_parts(uri, path, descriptor, sha256, length):
                    return
            except UploadMissing as error:
                failure = error
        raise failure

    def _in_parts(self, uri: S3Uri, path: Path, descriptor: int, sha256: str, length: int) -> bool:
        """Upload a large file in parts, and return whether its checksum matches.

        An upload that fails is aborted.
        """
        size = max(PART_BYTES, -(-length // _MOST_PARTS))
        starts = range(0, length, size)
        created = self._call(
            uri,
            lambda: self.client.create_multipart_upload(
                Bucket=uri.bucket, Key=uri.key, Metadata={"sha256": sha256}
            ),
        )
        upload = field_of(uri, created, "UploadId", server_of(self.client))
        etags = [""] * len(starts)
        digests = [b""] * len(starts)

        def send(number: int) -> None:
            content = _read(descriptor, starts[number], min(size, length - starts[number]))
            digests[number] = _md5(content)
            response = self._call(
                uri,
                lambda: self.client.upload_part(
                    Bucket=uri.bucket,
                    Key=uri.key,
                    UploadId=upload,
                    PartNumber=number + 1,
                    Body=content,
                    ContentMD5=_base64(digests[number]),
                ),
            )
            etags[number] = etag_of(uri, response, server_of(self.client))

        try:
            each(send, range(len(starts)), _THREADS)
            if _sha256(descriptor, length) != sha256:
                raise _changed(path)
            self._complete(uri, upload, etags)
        except BaseException:
            self._abort(uri, upload)
            raise
        sums = [digest.hex() for digest in digests]
        return [etag.strip('"') for etag in etags] == sums or self._holds(uri, sha256)

    def _complete(self, uri: S3Uri, upload: str, etags: Sequence[str]) -> None:
        parts = [{"PartNumber": at, "ETag": etag} for at, etag in enumerate(etags, 1)]

        def attempt() -> None:
            try:
                self.client.complete_multipart_upload(
                    Bucket=uri.bucket,
                    Key=uri.key,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                )
            except self.client.exceptions.NoSuchUpload:
                # If the object exists, an earlier attempt succeeded and its response was lost.
                if not self._exists(uri):
                    raise

        self.retry.call(uri, attempt)

    def _exists(self, uri: S3Uri) -> bool:
        try:
            self.client.head_object(Bucket=uri.bucket, Key=uri.key)
        except self.client.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def _abort(self, uri: S3Uri, upload: str) -> None:
        """Abort an upload; if that fails, a later run does it."""
        try:
            self._call(
                uri,
                lambda: self.client.abort_multipart_upload(
                    Bucket=uri.bucket, Key=uri.key, UploadId=upload
                ),
            )
        except StorageError:
            return

    def _holds(self, uri: S3Uri, sha256: str) -> bool:
        """Read an uploaded object back, and return whether its SHA-256 matches."""

        def attempt() -> str:
            body = self.client.get_object(Bucket=uri.bucket, Key=uri.key)["Body"]
            return hash_stream(body)[0]

        return self.retry.call(uri, attempt) == sha256

    def _call(self, uri: S3Uri, request: Callable[[], T]) -> T:
        return self.retry.call(uri, request)


def _read(descriptor: int, start: int, length: int) -> bytes:
    """Read ``length`` bytes; fewer if the file ends before."""
    blocks = []
    while length and (block := os.pread(descriptor, length, start)):
        blocks.append(block)
        start, length = start + len(block), length - len(block)
    return b"".join(blocks)


def _sha256(descriptor: int, length: int) -> str:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return hash_stream(file, length)[0]


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def _changed(path: Path) -> ObjectChanged:
    return ObjectChanged(
        f"{path} changed during its upload", "Do not change the output during the run."
    )
