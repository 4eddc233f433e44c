"""A response that arrives too slowly ends with a timeout, and is requested again."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from unusual_s3 import BUCKET, Unusual

from job.errors import TransferFailed
from job.storage.s3.client import S3Settings, make_client, make_session
from job.storage.s3.fast_get import FastGet
from job.storage.s3.objects import ObjectStore
from job.storage.s3.retry import Retry

# In this time, the server sends 25 bytes.
READ_SECONDS = 0.5
ACTS: dict[str, Callable[[ObjectStore, Path], object]] = {
    "read": lambda store, folder: store.read(BUCKET / "a"),
    "range": lambda store, folder: store.read_range(BUCKET / "a", 2, 40),
    "head": lambda store, folder: store.head(BUCKET / "a"),
    "list": lambda store, folder: list(store.list(BUCKET)),
    "put": lambda store, folder: store.put(BUCKET / "a", b"new"),
    "download": lambda store, folder: store.download(BUCKET / "a", folder / "a"),
}


def store(server: Unusual, attempts: int) -> ObjectStore:
    session = make_session()
    settings = S3Settings(endpoint_url=server.url)
    client = make_client(settings, session=session, read_seconds=READ_SECONDS)
    retry = Retry(attempts=attempts, sleep=lambda seconds: None)
    return ObjectStore(client, retry, FastGet(client, session))


@pytest.mark.parametrize("act", ACTS)
def test_a_slow_response_is_requested_again(server: Unusual, tmp_path: Path, act: str) -> None:
    server.hold("a", b"content" * 10)
    slow = store(server, attempts=2)
    # The first read goes through boto3, and the next ones go through FastGet.
    slow.read(BUCKET / "a")
    server.requests.clear()
    server.habits.drips = 1
    began = time.monotonic()
    ACTS[act](slow, tmp_path)
    assert time.monotonic() - began > READ_SECONDS
    assert server.habits.drips == 0
    assert server.requests.total() == (3 if act == "download" else 2)


def test_a_server_that_is_always_slow(server: Unusual) -> None:
    server.hold("a", b"content" * 10)
    server.habits.drips = 9
    with pytest.raises(TransferFailed, match=f"{BUCKET}a on .*2 attempts"):
        store(server, attempts=2).head(BUCKET / "a")


def test_completing_an_upload_may_be_slow(server: Unusual) -> None:
    """S3 sends single spaces while it completes a multipart upload."""
    client = store(server, attempts=1).client
    server.habits.drips = 1
    created = client.create_multipart_upload(Bucket=BUCKET.bucket, Key="a")
    assert created["UploadId"]
    assert server.requests["POST"] == 1


def test_a_slow_reader_is_not_a_slow_server(server: Unusual) -> None:
    server.hold("a", bytes(3_000_000))
    client = store(server, attempts=1).client
    body = client.get_object(Bucket=BUCKET.bucket, Key="a")["Body"]
    received = 0
    while block := body.read(1_000_000):
        received += len(block)
        time.sleep(1.5 * READ_SECONDS)
    assert received == 3_000_000
