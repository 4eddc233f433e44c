"""Each promise about S3 under the habits of real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from unusual_s3 import BUCKET, Unusual, unusual

from job.errors import DataError, ObjectChanged, StorageError
from job.storage.s3.access import Access, input_errors
from job.storage.s3.client import S3Settings
from job.storage.s3.prefetch import Piece, PieceReader
from job.storage.s3.range_reader import RangeReader


@pytest.fixture(scope="module")
def running(s3_server: object) -> Iterator[Unusual]:
    """One server for the tests of this file; the other server sets the credentials."""
    with unusual() as server:
        yield server


@pytest.fixture
def server(running: Unusual) -> Unusual:
    """A server without objects and habits."""
    running.habits.reset()
    running.objects.clear()
    running.requests.clear()
    running.uploads.clear()
    return running


def access(server: Unusual, folder: Path) -> Access:
    return Access(S3Settings(endpoint_url=server.url), folder / "cache", 10_000_000)


class TestReplacedObjects:
    """A server that ignores If-Match returns the new object."""

    @pytest.mark.parametrize("ignores", [True, False])
    def test_replaced_content_is_rejected_and_not_cached(
        self, server: Unusual, tmp_path: Path, ignores: bool
    ) -> None:
        server.habits.ignores_if_match = ignores
        uri = server.hold("a", b"content" * 10)
        store = server.store()
        entry = store.head(uri)
        server.hold("a", b"another" * 10)
        with pytest.raises(ObjectChanged):
            store.read(uri, etag=entry.etag)
        with pytest.raises(ObjectChanged):
            store.read_range(uri, 0, 5, etag=entry.etag)
        with pytest.raises(DataError) as raised:
            RangeReader(store, entry).read(5)
        assert raised.value.exit_code == 4
        where = access(server, tmp_path)
        reader = PieceReader(where, store)
        for piece in (Piece(entry, None, entry.bytes, None), Piece(entry, 3, 4, "0" * 64)):
            with pytest.raises(DataError, match=str(uri)) as raised:
                reader.fetch(piece)
            assert raised.value.exit_code == 4
        assert where.cache().get(where.name(entry)) is None

    def test_replaced_during_a_download(self, server: Unusual, tmp_path: Path) -> None:
        server.habits.ignores_if_match = True
        uri = server.hold("a", b"content")
        store = server.store()
        head = store.client.head_object

        class Replacing:
            def __getattr__(self, name: str) -> object:
                return getattr(server.store().client, name)

            def head_object(self, **given: str) -> object:
                response = head(**given)
                server.hold("a", b"another")
                return response

        store.client = Replacing()
        with pytest.raises(ObjectChanged):
            store.download(uri, tmp_path / "a")
        assert not (tmp_path / "a").exists()

    def test_an_unchanged_object_with_a_weak_etag(self, server: Unusual) -> None:
        uri = server.hold("a", b"content")
        store = server.store()
        etag = store.head(uri).etag
        server.habits.ignores_if_match = True
        assert store.read(uri, etag=f"W/{etag}") == b"content"


class TestDamagedObjects:
    def test_content_that_never_matches_its_md5(self, server: Unusual, tmp_path: Path) -> None:
        server.habits.flips_a_byte = True
        uri = server.hold("a", b"content")
        store = server.store()
        entry = store.head(uri)
        for act in (
            lambda: store.read(uri),
            lambda: store.read(uri, length=entry.bytes, etag=entry.etag),
            lambda: store.download(uri, tmp_path / "a"),
        ):
            with pytest.raises(DataError, match=f"{uri}: .*MD5") as raised, input_errors():
                act()
            assert raised.value.exit_code == 4
            # The hint is about the object, not about a job that changes its inputs.
            assert "pload" in raised.value.hint
        assert list(tmp_path.iterdir()) == []

    def test_content_that_never_matches_its_sha256(self, server: Unusual) -> None:
        server.habits.flips_a_byte = True
        uri = server.hold("a", b"content", sha256="0" * 64)
        with pytest.raises(DataError, match="SHA-256") as raised, input_errors():
            server.store().read(uri)
        assert raised.value.exit_code == 4

    def test_an_encrypted_object(self, server: Unusual, tmp_path: Path) -> None:
        server.habits.encrypts = True
        uri = server.hold("a", b"content")
        store = server.store()
        assert store.read(uri) == b"content"
        store.download(uri, tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == b"content"
        store.put(uri, b"new")
        assert store.read(uri) == b"new"


class TestResponsesWithoutETag:
    def test_are_an_error(self, server: Unusual, tmp_path: Path) -> None:
        uri = server.hold("a", b"content")
        store = server.store()
        etag = store.head(uri).etag
        server.habits.without_etag = True
        server.habits.ignores_if_match = True
        for act in (
            lambda: store.head(uri),
            lambda: store.read(uri, etag=etag),
            lambda: store.read_range(uri, 0, 3, etag=etag),
            lambda: store.download(uri, tmp_path / "a"),
            lambda: store.put(uri, b"new"),
            lambda: list(store.list(BUCKET)),
        ):
            with pytest.raises(StorageError, match="ETag") as raised:
                act()
            assert type(raised.value) is StorageError
            assert server.url in str(raised.value)
            assert BUCKET.bucket in str(raised.value)
