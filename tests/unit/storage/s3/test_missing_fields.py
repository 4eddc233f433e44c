"""Responses without a field, or with a time in another form."""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from unusual_s3 import BUCKET, Unusual

from job.errors import StorageError
from job.storage.s3.access import Access
from job.storage.s3.client import S3Settings, parsed_time
from job.storage.s3.lease import acquire
from job.storage.s3.objects import ObjectStore
from job.storage.s3.upload import PART_BYTES

Act = Callable[[ObjectStore, Path], object]


def in_parts(store: ObjectStore, folder: Path) -> None:
    path = folder / "large"
    path.write_bytes(bytes(PART_BYTES + 1))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    store.upload(BUCKET / "large", path, sha256=sha256, length=PART_BYTES + 1)


ACTS: dict[str, Act] = {
    "list": lambda store, folder: list(store.list(BUCKET)),
    "level": lambda store, folder: list(store.level(BUCKET)),
    "abort": lambda store, folder: store.abort_unfinished(BUCKET, lambda key: True),
    "upload": in_parts,
}


@pytest.mark.parametrize(
    ("element", "act"),
    [
        *(("Key", act) for act in ("list", "abort")),
        *((element, "list") for element in ("Size", "LastModified")),
        ("Prefix", "level"),
        *(("UploadId", act) for act in ("abort", "upload")),
    ],
)
def test_a_missing_element_is_an_error(
    server: Unusual, tmp_path: Path, element: str, act: str
) -> None:
    server.hold("a/b", b"content")
    server.uploads["upload-9"] = "a/b"
    server.habits.rewrites = lambda text: re.sub(f"<{element}>[^<]*</{element}>", "", text)
    with pytest.raises(StorageError, match=element) as raised:
        ACTS[act](server.store(), tmp_path)
    assert type(raised.value) is StorageError
    assert server.url in str(raised.value)


@pytest.mark.parametrize("size", ["many", "", "1.5", "-1", "0x10"])
def test_an_invalid_size_is_an_error(server: Unusual, size: str) -> None:
    server.hold("set/a.jpg", b"content")
    server.habits.rewrites = lambda text: re.sub("<Size>7", f"<Size>{size}", text)
    with pytest.raises(StorageError, match=r"s3://bucket/set/a\.jpg on .*: Size") as raised:
        list(server.store().list(BUCKET / "set"))
    assert type(raised.value) is StorageError
    assert server.url in str(raised.value)
    assert raised.value.hint


def test_an_invalid_number_that_is_not_read_is_ignored(server: Unusual) -> None:
    server.hold("a", b"content")
    server.habits.rewrites = lambda text: text.replace(
        "<Contents>", "<KeyCount>1 of 1</KeyCount><Contents>"
    )
    assert [each.bytes for each in server.store().list(BUCKET)] == [7]


def test_an_invalid_length_is_an_error(server: Unusual, tmp_path: Path) -> None:
    uri = server.hold("a", b"content")
    store = Access(S3Settings(endpoint_url=server.url), tmp_path, 1000).store()
    assert store.read(uri) == b"content"
    server.habits.headers = {"Content-Length": "seven", "Connection": "close"}
    for read in (store.head, store.read, server.store().read):
        with pytest.raises(StorageError, match=f"{uri} on .*: header Content-Length") as raised:
            read(uri)
        assert type(raised.value) is StorageError
        assert server.url in str(raised.value)


def test_head_without_a_size(server: Unusual, tmp_path: Path) -> None:
    uri = server.hold("a", b"content")
    server.habits.heads_without_size = True
    assert server.store().head(uri).bytes == 7
    server.store().download(uri, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"content"
    server.habits.chunked = True
    with pytest.raises(StorageError, match=f"{uri} on .*Content-Length") as raised:
        server.store().head(uri)
    assert type(raised.value) is StorageError
    assert server.url in str(raised.value)


def test_keys_of_another_prefix_are_an_error(server: Unusual) -> None:
    """A server, or a proxy, that ignores the prefix lists objects that are not the run's."""
    server.hold("run/a", b"content")
    server.habits.rewrites = lambda text: text.replace("<Key>run/a", "<Key>other/a")
    with pytest.raises(StorageError, match="other/a") as raised:
        list(server.store().list(BUCKET / "run"))
    assert type(raised.value) is StorageError
    assert server.url in str(raised.value)


def test_an_invalid_time_is_an_error(server: Unusual) -> None:
    server.hold("set/a", b"content")
    server.habits.rewrites = lambda text: text.replace("<LastModified>", "<LastModified>soon ")
    with pytest.raises(StorageError, match=r"s3://bucket/set/a on .*soon") as raised:
        list(server.store().list(BUCKET / "set"))
    assert type(raised.value) is StorageError
    assert server.url in str(raised.value)


def test_a_run_locks_an_output_if_times_have_no_time_zone(server: Unusual) -> None:
    server.habits.rewrites = lambda text: text.replace(".000Z</LastModified>", "</LastModified>")
    lease = acquire(server.store(), BUCKET / "run", run="ours", lease_seconds=60, say=print)
    lease.verify()


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-29T13:00:05.000Z",
        "2026-11-29T13:00:05Z",
        "2026-11-29T13:00:05",
        "2026-11-29T14:00:05+01:00",
        "Sun, 29 Nov 2026 13:00:05 GMT",
        1795957205,
        1795957205.0,
    ],
)
def test_forms_of_times(value: str | float) -> None:
    """Clients of other services of AWS share the parser; they send seconds."""
    assert parsed_time(value) == datetime(2026, 11, 29, 13, 0, 5, tzinfo=UTC)


def test_no_time() -> None:
    assert parsed_time("soon") == "soon"


def test_a_lock_that_cannot_be_written_names_the_operation(server: Unusual) -> None:
    """Removing the lock fails too, but this error is not the reason."""
    server.habits.rejects = (403, "AccessDenied")
    with pytest.raises(StorageError, match="PutObject"):
        acquire(server.store(), BUCKET / "run", run="ours", lease_seconds=60, say=print)
