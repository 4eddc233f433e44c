"""Responses in another form than AWS sends: accepted if their content is certain, else an error.

An error that a retry cannot help must not be retried for minutes.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from unusual_s3 import BUCKET, Unusual

from job.errors import ObjectChanged, ObjectDamaged, StorageError, UploadMissing
from job.storage.s3.client import make_session
from job.storage.s3.fast_get import FastGet
from job.storage.s3.objects import ObjectStore
from job.storage.s3.range_reader import RangeReader
from job.storage.s3.retry import Retry
from job.storage.s3.upload import PART_BYTES
from job.uri import S3Uri

CONTENT = b"content" * 100


def stores(server: Unusual) -> dict[str, ObjectStore]:
    """Return a store that sends requests by boto3, and one that sends them by FastGet."""
    fast = FastGet(server.client, make_session())
    quick = ObjectStore(server.client, Retry(attempts=4, sleep=lambda seconds: None), fast)
    # The first request to a bucket is sent by boto3.
    quick.read(server.hold("first", b"first"))
    return {"boto3": server.store(), "FastGet": quick}


@pytest.fixture(params=["boto3", "FastGet"])
def store(server: Unusual, request: pytest.FixtureRequest) -> ObjectStore:
    return stores(server)[request.param]


class TestFormsOfETags:
    """A listing, HEAD and GET can write the ETag of one version in different forms."""

    @pytest.mark.parametrize("form", ['W/"{}"', "{}"])
    def test_they_name_the_same_version(
        self, server: Unusual, store: ObjectStore, tmp_path: Path, form: str
    ) -> None:
        uri = server.hold("a", CONTENT)
        (listed,) = [each for each in store.list(BUCKET, etags=True) if each.uri == uri]
        server.habits.etags = form
        described = store.head(uri)
        assert described.etag != listed.etag
        for etag in (listed.etag, described.etag):
            assert store.read(uri, etag=etag) == CONTENT
            assert store.read_range(uri, 5, 9, etag=etag) == CONTENT[5:14]
            store.download(uri, tmp_path / "a", etag=etag)
            assert (tmp_path / "a").read_bytes() == CONTENT
        store.put(uri, b"new")
        for etag in (listed.etag, described.etag):
            with pytest.raises(ObjectChanged):
                store.read(uri, etag=etag)
            with pytest.raises(ObjectChanged):
                store.download(uri, tmp_path / "a", etag=etag)

    def test_an_etag_without_quotes_is_an_md5(self, server: Unusual, store: ObjectStore) -> None:
        uri = server.hold("a", CONTENT)
        server.habits.etags, server.habits.flips_a_byte = "{}", True
        with pytest.raises(ObjectDamaged):
            store.read(uri)


class TestResponsesInChunks:
    def test_are_read_and_verified(
        self, server: Unusual, store: ObjectStore, tmp_path: Path
    ) -> None:
        uri = server.hold("a", CONTENT)
        server.habits.chunked = True
        etag = store.head(uri).etag
        assert store.read(uri) == CONTENT
        assert store.read(uri, length=len(CONTENT), etag=etag) == CONTENT
        assert store.read_range(uri, 5, 9, etag=etag) == CONTENT[5:14]
        store.download(uri, tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == CONTENT
        server.habits.flips_a_byte = True
        with pytest.raises(ObjectDamaged):
            store.read(uri)

    def test_a_length_is_verified_without_an_md5(self, server: Unusual, store: ObjectStore) -> None:
        uri = server.hold("a", CONTENT)
        server.habits.chunked, server.habits.encrypts = True, True
        assert store.read(uri) == CONTENT
        server.requests.clear()
        with pytest.raises(StorageError, match="incomplete"):
            store.read(uri, length=len(CONTENT) + 1)


class TestIgnoredRanges:
    """A server returns the whole object with status 200 for a range."""

    def test_the_whole_object_is_accepted(
        self, server: Unusual, store: ObjectStore, tmp_path: Path
    ) -> None:
        uri = server.hold("a", CONTENT)
        server.habits.ignores_range = True
        entry = store.head(uri)
        assert store.read_range(uri, 0, len(CONTENT)) == CONTENT
        assert store.read_range(uri, 0, len(CONTENT) + 1) == CONTENT
        assert RangeReader(store, entry).read() == CONTENT
        store.download(uri, tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == CONTENT

    def test_a_download_that_resumes_starts_again(self, server: Unusual, tmp_path: Path) -> None:
        uri = server.hold("a", CONTENT)
        mark = hashlib.sha256(server.store().head(uri).etag.encode()).hexdigest()[:16]
        part = tmp_path / f".a.{mark}.part"
        part.write_bytes(CONTENT[:40])
        server.habits.ignores_range = True
        server.requests.clear()
        server.store().download(uri, tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == CONTENT
        assert server.requests["GET"] == 1
        assert not part.exists()

    @pytest.mark.parametrize("habit", ["ignores_range", "unknown_size"])
    def test_a_part_is_an_error_without_a_retry(
        self, server: Unusual, store: ObjectStore, habit: str
    ) -> None:
        uri = server.hold("a", CONTENT)
        setattr(server.habits, habit, True)
        for start, length in ((5, 9), (0, 9), (5, len(CONTENT))):
            server.requests.clear()
            with pytest.raises(StorageError, match="Range") as raised:
                store.read_range(uri, start, length)
            assert type(raised.value) is StorageError
            assert server.url in str(raised.value)
            assert server.requests.total() == 1


class TestAbortedUploads:
    """A lifecycle rule of the bucket aborts an unfinished upload."""

    def upload(self, server: Unusual, folder: Path, aborted: int) -> tuple[S3Uri, bytes]:
        content = bytes(range(256)) * (PART_BYTES // 256) + b"end"
        path = folder / "large"
        path.write_bytes(content)
        server.habits.aborts_uploads = aborted
        sha256 = hashlib.sha256(content).hexdigest()
        server.store().upload(BUCKET / "a", path, sha256=sha256, length=len(content))
        return BUCKET / "a", content

    def test_the_upload_starts_again(self, server: Unusual, tmp_path: Path) -> None:
        uri, content = self.upload(server, tmp_path, 1)
        assert server.objects[uri.key].content == content
        assert not server.uploads

    def test_a_store_that_aborts_every_upload(self, server: Unusual, tmp_path: Path) -> None:
        with pytest.raises(UploadMissing, match=r"s3://bucket/a on .*multipart"):
            self.upload(server, tmp_path, 1000)
        assert "a" not in server.objects


@pytest.mark.parametrize(
    ("act", "operation"),
    [
        (lambda store: store.read(BUCKET / "a"), "GetObject"),
        (lambda store: store.put(BUCKET / "a", b""), "PutObject"),
        (lambda store: store.delete([BUCKET / "a"]), "DeleteObject"),
    ],
)
def test_a_denied_request_names_the_operation(
    server: Unusual, act: Callable[[ObjectStore], object], operation: str
) -> None:
    """A bucket policy names permissions, so the user must find the one that is missing."""
    server.habits.rejects = 403, "AccessDenied"
    with pytest.raises(StorageError, match=operation):
        act(server.store())
