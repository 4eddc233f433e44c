"""The fast GET returns the same as boto3, and boto3 handles errors."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from moto_server import S3Server

from job.errors import ObjectChanged, ObjectMissing, StorageError, TransferFailed
from job.storage.s3.client import S3Settings, make_client, make_session
from job.storage.s3.fast_get import FastGet
from job.storage.s3.objects import ObjectStore
from job.storage.s3.retry import Retry
from job.uri import S3Uri

KEYS = ("plain.jpg", "a b/+%25/~x", "ä/ö (1).jpg", "a=b&c;d,e:f@g!", "'quoted'*$")


class Counted:
    """A client that counts the requests for objects that boto3 sends."""

    def __init__(self, client: Any) -> None:
        self.client, self.own = client, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def get_object(self, **given: Any) -> Any:
        self.own += 1
        return self.client.get_object(**given)


@pytest.fixture
def client(s3_server: S3Server) -> Counted:
    return Counted(make_client(S3Settings()))


@pytest.fixture
def quick(client: Counted) -> ObjectStore:
    return ObjectStore(client, Retry(attempts=1), FastGet(client, make_session()))


@pytest.mark.parametrize("key", KEYS)
def test_like_boto3(
    s3_server: S3Server, bucket: S3Uri, client: Counted, quick: ObjectStore, key: str
) -> None:
    content = key.encode() * 1000
    s3_server.store.put(bucket / key, content)
    etag = s3_server.store.head(bucket / key).etag
    for _ in range(3):
        assert quick.read(bucket / key, etag=etag) == content
        assert quick.read_range(bucket / key, 3, 5000) == content[3:5003]
        assert quick.read_range(bucket / key, len(content) - 2, 10) == content[-2:]
    assert client.own == 1
    real = client.client.get_object(Bucket=bucket.bucket, Key=key, Range="bytes=1-4", IfMatch=etag)
    ours = FastGet(client, make_session())
    for _ in range(2):
        found = ours(Bucket=bucket.bucket, Key=key, Range="bytes=1-4", IfMatch=etag)
        told = ("ContentLength", "ContentRange", "ETag", "Metadata")
        assert {name: found[name] for name in told} == {name: real[name] for name in told}
        assert found["Metadata"]["sha256"]
    assert client.own == 2


def test_it_takes_less_processor_time(
    s3_server: S3Server, bucket: S3Uri, client: Counted, tell: Callable[[str], None]
) -> None:
    s3_server.store.put(bucket / "a", bytes(70_000))
    spent = {}
    fast = FastGet(client, make_session())
    for name, get in (("boto3", client.client.get_object), ("fast", fast)):
        get(Bucket=bucket.bucket, Key="a")["Body"].read()
        began = time.process_time()
        for _ in range(150):
            get(Bucket=bucket.bucket, Key="a")["Body"].read()
        spent[name] = (time.process_time() - began) / 150
    tell(", ".join(f"{name} {1000 * each:.2f} ms a request" for name, each in spent.items()))
    assert spent["fast"] < 0.8 * spent["boto3"]


def test_virtual_hosts_and_other_regions(client: Counted) -> None:
    """The URL and the region are those of boto3's request."""
    asked: list[str] = []

    def answer(request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        asked.append(request.url)
        return AWSResponse(request.url, 200, {"content-length": "0", "etag": "x"}, _Empty())

    real = make_client(
        S3Settings(endpoint_url="https://s3.example", region="eu-x-1", addressing="virtual")
    )
    fast = FastGet(real, make_session())
    real.meta.events.register_last("before-send.s3.GetObject", answer)
    fast(Bucket="bkt", Key="a b")
    pool = _Pool()
    fast._buckets["bkt"] = replace(fast._buckets["bkt"], pool=pool)
    fast(Bucket="bkt", Key="c/d e")
    assert asked == ["https://bkt.s3.example/a%20b"]
    assert fast._buckets["bkt"].url == "https://bkt.s3.example"
    (path, headers), *_ = pool.sent
    assert path == "/c/d%20e"
    assert "/eu-x-1/s3/aws4_request" in headers["Authorization"]


class _Pool:
    """Keeps the requests and returns an empty response."""

    status, headers, data = 200, {"content-length": "0", "etag": "x"}, b""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def request(self, method: str, path: str, *, headers: Any, **_: Any) -> Any:
        self.sent.append((path, headers))
        return self


class _Empty:
    def stream(self) -> list[bytes]:
        return []

    def read(self, *_: object) -> bytes:
        return b""


def test_what_is_no_success_is_told_by_boto3(
    s3_server: S3Server, bucket: S3Uri, client: Counted, quick: ObjectStore
) -> None:
    s3_server.store.put(bucket / "a", b"content")
    for store in (quick, quick):
        assert store.read(bucket / "a") == b"content"
    with pytest.raises(ObjectMissing, match=str(bucket / "b")):
        quick.read(bucket / "b")
    with pytest.raises(ObjectChanged, match=str(bucket / "a")):
        quick.read(bucket / "a", etag='"0123"')
    with pytest.raises(StorageError, match="416"):
        quick.read_range(bucket / "a", 100, 5)
    assert client.own == 4


def test_a_server_that_is_gone(
    s3_server: S3Server, bucket: S3Uri, client: Counted, quick: ObjectStore
) -> None:
    s3_server.store.put(bucket / "a", b"content")
    quick.read(bucket / "a")
    get = quick._get
    assert isinstance(get, FastGet)
    for name, known in get._buckets.items():
        url = "http://127.0.0.1:9"
        get._buckets[name] = replace(known, url=url, pool=get._pool(url))
    with pytest.raises(TransferFailed, match="port=9"):
        quick.read(bucket / "a")


def test_credentials_that_were_renewed(
    s3_server: S3Server, bucket: S3Uri, client: Counted, quick: ObjectStore
) -> None:
    s3_server.store.put(bucket / "a", b"content")
    quick.read(bucket / "a")
    get = quick._get
    assert isinstance(get, FastGet)
    pool = _Pool()
    get._buckets[bucket.bucket] = replace(get._buckets[bucket.bucket], pool=pool)
    credentials = get._session.get_credentials()
    credentials.access_key, credentials.token = "RENEWED", "token"
    get(Bucket=bucket.bucket, Key="a")
    (_, headers), *_ = pool.sent
    assert "Credential=RENEWED/" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] in ("token", b"token")
