"""Each promise about S3 under the habits of real servers."""

import time
from pathlib import Path

import pytest
from unusual_s3 import BUCKET, Unusual

from job.data.s3.list_objects import list_below
from job.errors import DataError, ObjectChanged, StorageError, TransferFailed
from job.process.signals import StopSignals
from job.storage.s3.access import Access, input_errors
from job.storage.s3.client import S3Settings
from job.storage.s3.fetch_run import read_records
from job.storage.s3.output import S3Output
from job.storage.s3.prefetch import Piece, PieceReader
from job.storage.s3.range_reader import RangeReader
from job.storage.s3.responses import S3Object
from job.storage.s3.retry import Retry


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
        with pytest.raises(ObjectChanged, match=f"{uri} on {server.url}: "):
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
            with pytest.raises(DataError, match=f"{uri} on .*MD5") as raised, input_errors():
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


class TestOutages:
    """The server is away for a while in each phase of a run."""

    def test_reading_inputs(self, server: Unusual, tmp_path: Path) -> None:
        uri = server.hold("a", b"content")
        where = access(server, tmp_path)
        said: list[str] = []
        store = where.store(said.append)
        piece = Piece(store.head(uri), None, 7, None)
        server.habits.away_until = time.monotonic() + 1.2
        assert PieceReader(where, store).fetch(piece) == b"content"
        assert len(said) == 1
        assert str(uri) in said[0]

    def test_saving_and_publishing_a_run(self, server: Unusual, tmp_path: Path) -> None:
        """The lease, the upload of a stage, and the index wait for the server."""
        said: list[str] = []
        store = server.store(Retry(say=said.append))
        output = BUCKET / "run"
        folder = S3Output(output, store, tmp_path / "a", lease_seconds=4, say=said.append)
        server.habits.away_until = time.monotonic() + 1.2
        with StopSignals() as stop, folder.locked():
            folder.keep_manifest({"name": "kept"})
            server.habits.away_until = time.monotonic() + 1.2
            folder.sync(stop, 25)
        assert read_records(server.store(), output, ["manifest.json"]) == {
            "manifest.json": {"name": "kept"}
        }
        assert len(said) == 1

    def test_the_budget_of_the_manifest(self, server: Unusual, tmp_path: Path) -> None:
        server.habits.away_until = time.monotonic() + 60
        settings = S3Settings(endpoint_url=server.url, retry_seconds=0.3)
        began = time.monotonic()
        with pytest.raises(TransferFailed, match="s3://bucket/a on "):
            Access(settings, tmp_path, 1000).store().read(BUCKET / "a")
        assert time.monotonic() - began < 5


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
            lambda: list(store.list(BUCKET, etags=True)),
            lambda: list(store.level(BUCKET)),
            lambda: list(store.directly_in(BUCKET)),
        ):
            with pytest.raises(StorageError, match="ETag") as raised:
                act()
            assert type(raised.value) is StorageError
            assert server.url in str(raised.value)
            assert BUCKET.bucket in str(raised.value)

    def test_objects_of_an_output_are_listed(self, server: Unusual) -> None:
        """rclone lists the claim of another run without ETag while the run renews it."""
        server.hold("run/lease/1", b"")
        server.habits.without_etag = True
        (entry,) = server.store().list(BUCKET / "run")
        assert entry.etag == ""


class TestListings:
    def test_a_truncated_listing_without_token(self, server: Unusual) -> None:
        server.habits.page_keys, server.habits.listings_without_token = 2, True
        for number in range(3):
            server.hold(f"a/{number}", b"")
        with pytest.raises(StorageError, match="token") as raised:
            list(server.store().list(BUCKET / "a"))
        assert type(raised.value) is StorageError
        assert server.url in str(raised.value)

    def test_a_first_page_that_repeats(self, server: Unusual) -> None:
        server.habits.page_keys, server.habits.first_version_listings = 2, True
        for number in range(3):
            server.hold(f"a/{number}/b", b"")
        for act in (
            lambda: list(server.store().list(BUCKET)),
            lambda: list(server.store().level(BUCKET / "a")),
        ):
            server.requests.clear()
            with pytest.raises(StorageError, match="repeats") as raised:
                act()
            assert type(raised.value) is StorageError
            assert server.requests["LIST"] == 2

    def test_a_later_page_that_repeats(self, server: Unusual) -> None:
        store, tokens = server.store(), list[str]()

        class Repeating:
            def list_objects_v2(self, ContinuationToken: str = "", **given: str) -> object:  # noqa: N803
                tokens.append(ContinuationToken)
                page = {"Prefix": f"a/{bool(ContinuationToken)}/"}
                more = {"IsTruncated": True, "NextContinuationToken": "next"}
                return {"CommonPrefixes": [page], **more}

        store.client = Repeating()
        with pytest.raises(StorageError, match="token"):
            list(store.level(BUCKET / "a"))
        assert tokens == ["", "next"]

    def test_a_flat_folder_is_listed_once(self, server: Unusual) -> None:
        server.habits.page_keys = 10
        for number in range(95):
            server.hold(f"data/{number:02d}.jpg", b"x")
        server.hold("data/inner/a.jpg", b"x")
        pages = list(server.store().level(BUCKET / "data"))
        assert [each for folders, _ in pages for each in folders] == [BUCKET / "data" / "inner"]
        assert sum(len(objects) for _, objects in pages) == 95
        assert server.requests["LIST"] == 10
        server.requests.clear()
        found: list[S3Object] = []
        list_below([BUCKET / "data"], server.store(), found.extend)
        assert len(found) == 96
        assert server.requests["LIST"] == 11

    def test_more_unfinished_uploads_than_a_page(self, server: Unusual) -> None:
        server.habits.page_keys = 2
        for number in range(5):
            server.uploads[f"id-{number}"] = f"runs/dead/{number}"
        assert server.store().abort_unfinished(BUCKET, lambda key: True) == 5
        assert server.uploads == {}


class TestThrottling:
    def test_each_throttled_get_is_one_request(self, server: Unusual, tmp_path: Path) -> None:
        uri = server.hold("a", b"content")
        store = access(server, tmp_path).store()
        store.read(uri)
        server.requests.clear()
        server.habits.throttles = 3
        assert store.read(uri) == b"content"
        assert server.requests["GET"] == 4


class TestErrorsWithoutMessage:
    def test_no_none(self, server: Unusual) -> None:
        server.habits.rejects, server.habits.without_message = (400, "InvalidArgument"), True
        with pytest.raises(StorageError, match="InvalidArgument") as raised:
            server.store().put(BUCKET / "a", b"")
        assert "None" not in str(raised.value)
