"""Objects in S3, against a real HTTP server."""

import hashlib
import itertools
import os
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from moto_server import S3Server

from job.errors import (
    ObjectChanged,
    ObjectDamaged,
    ObjectMissing,
    StorageError,
    TransferFailed,
    UsageError,
)
from job.storage.s3 import upload as s3_upload
from job.storage.s3.client import S3Settings, make_client, make_retry
from job.storage.s3.errors import s3_errors
from job.storage.s3.objects import ObjectStore
from job.storage.s3.retry import Retry
from job.storage.s3.upload import Upload
from job.uri import S3Uri


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Meddling:
    """A client with replaced methods; the requests are real.

    Args:
        client: the real client.
        methods: functions to call instead, with the real method as first argument.
    """

    def __init__(self, client: Any, **methods: Any) -> None:
        self._client, self._methods = client, methods

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        other = self._methods.get(name)
        return real if other is None else lambda **given: other(real, **given)


class Body:
    """A body that is cut off or raises an error."""

    def __init__(self, content: bytes, error: Exception | None = None) -> None:
        self.content, self.error = content, error

    def read(self, count: int | None = None) -> bytes:
        found = self.content[:count]
        self.content = self.content[len(found) :]
        if not found and self.error:
            raise self.error
        return found

    def close(self) -> None:
        """Do nothing."""


def patient(pauses: list[float] | None = None, attempts: int = 4) -> Retry:
    return Retry(attempts=attempts, sleep=(pauses if pauses is not None else []).append)


def store(client: Any, **methods: Any) -> ObjectStore:
    return ObjectStore(Meddling(client, **methods), patient())


class TestReading:
    def test_head_and_read(self, s3_server: S3Server, bucket: S3Uri) -> None:
        s3_server.store.put(bucket / "a/b", b"content")
        found = s3_server.store.head(bucket / "a/b")
        assert (found.bytes, found.sha256) == (7, sha(b"content"))
        assert s3_server.store.read(bucket / "a/b") == b"content"
        assert s3_server.store.read(bucket / "a/b", sha256=sha(b"content")) == b"content"

    def test_ranges(self, s3_server: S3Server, bucket: S3Uri) -> None:
        s3_server.store.put(bucket / "a", b"0123456789")
        assert s3_server.store.read_range(bucket / "a", 3, 4) == b"3456"
        assert s3_server.store.read_range(bucket / "a", 8, 4) == b"89"
        assert s3_server.store.read_range(bucket / "a", 3, 0) == b""
        with pytest.raises(StorageError, match="InvalidRange"):
            s3_server.store.read_range(bucket / "a", 10, 1)

    def test_a_pinned_etag(self, s3_server: S3Server, bucket: S3Uri) -> None:
        s3_server.store.put(bucket / "a", b"one")
        etag = s3_server.store.head(bucket / "a").etag
        s3_server.store.put(bucket / "a", b"two")
        for read in (
            lambda: s3_server.store.read(bucket / "a", etag=etag),
            lambda: s3_server.store.read_range(bucket / "a", 0, 1, etag=etag),
        ):
            with pytest.raises(ObjectChanged, match=f"{bucket / 'a'} on "):
                read()

    def test_a_wrong_digest(self, s3_server: S3Server, bucket: S3Uri) -> None:
        s3_server.store.put(bucket / "a", b"one")
        with pytest.raises(ObjectChanged, match="SHA-256"):
            store(s3_server.client).read(bucket / "a", sha256=sha(b"two"))

    @pytest.mark.parametrize("known", [True, False])
    def test_what_arrives_changed_is_fetched_again(
        self, s3_server: S3Server, bucket: S3Uri, known: bool
    ) -> None:
        s3_server.client.put_object(Bucket=bucket.bucket, Key="a", Body=b"content")
        bodies = [b"c0ntent", b"conten"]

        def get(real: Any, **given: Any) -> Any:
            answer = real(**given)
            return {**answer, "Body": Body(bodies.pop())} if bodies else answer

        wanted = sha(b"content") if known else None
        read = store(s3_server.client, get_object=get).read(bucket / "a", sha256=wanted)
        assert (read, bodies) == (b"content", [])

    def test_a_shorter_answer_that_looks_whole(self, s3_server: S3Server, bucket: S3Uri) -> None:
        """It was taken for the object when it came twice: its ETag might have been no MD5."""
        s3_server.client.put_object(Bucket=bucket.bucket, Key="a", Body=b"content")
        answers = [3, 3, 3]

        def get(real: Any, **given: Any) -> Any:
            answer = real(**given)
            if not answers:
                return answer
            short = answer["Body"].read()[: answers.pop()]
            return {**answer, "ContentLength": len(short), "Body": Body(short)}

        assert store(s3_server.client, get_object=get).read(bucket / "a") == b"content"

    def test_an_etag_that_is_no_md5(self, s3_server: S3Server, bucket: S3Uri) -> None:
        s3_server.client.put_object(Bucket=bucket.bucket, Key="a", Body=b"content")

        def get(real: Any, **given: Any) -> Any:
            kms = {"ETag": f'"{"0" * 32}"', "ServerSideEncryption": "aws:kms"}
            return {**real(**given), **kms}

        assert store(s3_server.client, get_object=get).read(bucket / "a") == b"content"

    def test_listing(self, s3_server: S3Server, bucket: S3Uri) -> None:
        for number in range(5):
            s3_server.store.put(bucket / f"a/{number}", bytes(number))
        s3_server.store.put(bucket / "ab", b"")

        def small(real: Any, **given: Any) -> Any:
            return real(**given, MaxKeys=2)

        paged = store(s3_server.client, list_objects_v2=small)
        assert [each.uri.name for each in paged.list(bucket / "a")] == ["0", "1", "2", "3", "4"]
        assert [each.bytes for each in paged.list(bucket / "a")] == [0, 1, 2, 3, 4]
        assert list(paged.list(bucket / "none")) == []

    def test_delete(self, s3_server: S3Server, bucket: S3Uri) -> None:
        s3_server.store.put(bucket / "a", b"")
        s3_server.store.delete([bucket / "a", bucket / "never"])
        with pytest.raises(ObjectMissing, match=f"{bucket / 'a'} on "):
            s3_server.store.head(bucket / "a")


class TestDownload:
    def test_whole(self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path) -> None:
        for name, content in (("big", os.urandom(3 << 20)), ("empty", b"")):
            s3_server.store.put(bucket / name, content)
            path = tmp_path / name
            s3_server.store.download(bucket / name, path, bytes=len(content), sha256=sha(content))
            assert path.read_bytes() == content
        assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "empty"]

    def test_goes_on_where_it_broke(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        content = os.urandom(5000)
        s3_server.store.put(bucket / "a", content)
        asked: list[str] = []

        def get(real: Any, **given: Any) -> Any:
            asked.append(given["Range"])
            answer = real(**given)
            broken = ResponseStreamingError(error="connection reset")
            return {**answer, "Body": Body(answer["Body"].read()[:1000], broken)}

        breaking = store(s3_server.client, get_object=get)
        breaking.download(bucket / "a", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == content
        # Progress each time: more failures than attempts in a row are allowed.
        assert asked == [f"bytes={start}-" for start in range(0, 5000, 1000)]

    def test_goes_on_in_another_process(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        s3_server.store.put(bucket / "a", b"0123456789")
        bodies = [Body(b"0123", ReadTimeoutError(endpoint_url="http://x"))]

        def get(real: Any, **given: Any) -> Any:
            if not bodies:
                raise EndpointConnectionError(endpoint_url="http://x")
            return {**real(**given), "Body": bodies.pop()}

        with pytest.raises(TransferFailed, match=r"Could not connect.*after 4 attempts"):
            store(s3_server.client, get_object=get).download(bucket / "a", tmp_path / "a")
        (part,) = tmp_path.iterdir()
        assert part.read_bytes() == b"0123"
        s3_server.store.download(bucket / "a", tmp_path / "a")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"0123456789"]

    def test_another_object_begins_anew(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        (tmp_path / ".a.0000000000000000.part").write_bytes(b"of an older object")
        s3_server.store.put(bucket / "a", b"new")
        s3_server.store.download(bucket / "a", tmp_path / "a")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_parts_of_files_with_similar_names_stay(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        (tmp_path / ".a.json.0123456789abcdef.part").write_bytes(b"of a.json, on its way")
        s3_server.store.put(bucket / "a", b"new")
        s3_server.store.download(bucket / "a", tmp_path / "a")
        assert len(list(tmp_path.iterdir())) == 2

    def test_replaced_meanwhile(self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path) -> None:
        s3_server.store.put(bucket / "a", b"one")

        def get(real: Any, **given: Any) -> Any:
            s3_server.store.put(bucket / "a", b"two")
            return real(**given)

        with pytest.raises(ObjectChanged, match=str(bucket / "a")):
            store(s3_server.client, get_object=get).download(bucket / "a", tmp_path / "a")
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize("given", [{"bytes": 4}, {"sha256": "0" * 64}, {"etag": '"x"'}])
    def test_not_what_was_promised(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path, given: Any
    ) -> None:
        s3_server.store.put(bucket / "a", b"one")
        with pytest.raises(ObjectChanged, match=str(bucket / "a")):
            store(s3_server.client).download(bucket / "a", tmp_path / "a", **given)
        assert list(tmp_path.iterdir()) == []


class TestUpload:
    def test_small(self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"content and more")
        s3_server.store.upload(bucket / "a", tmp_path / "a", sha256=sha(b"content"), length=7)
        assert s3_server.store.read(bucket / "a") == b"content"

    def test_in_parts_with_little_memory(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        content = os.urandom(1 << 20) * 90
        (tmp_path / "a").write_bytes(content)
        digest = sha(content)
        tracemalloc.start()
        s3_server.store.upload(bucket / "a", tmp_path / "a", sha256=digest, length=len(content))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 6 * s3_upload.PART_BYTES
        found = s3_server.store.head(bucket / "a")
        assert (found.bytes, found.sha256) == (len(content), digest)
        assert found.etag.endswith('-12"')
        s3_server.store.download(bucket / "a", tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == content

    def test_parts_that_fail_are_sent_again(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s3_upload, "PART_BYTES", 5 << 20)
        content = os.urandom(12 << 20)
        (tmp_path / "a").write_bytes(content)
        failures = {"upload_part": 3, "complete_multipart_upload": 2}

        def fail(name: str) -> Any:
            def method(real: Any, **given: Any) -> Any:
                answer = real(**given)
                failures[name] -= 1
                if failures[name] >= 0:  # carried out, and the answer lost
                    raise ReadTimeoutError(endpoint_url="http://x")
                return answer

            return method

        failing = store(s3_server.client, **{name: fail(name) for name in failures})
        failing.upload(bucket / "a", tmp_path / "a", sha256=sha(content), length=len(content))
        assert s3_server.store.read(bucket / "a") == content

    def test_a_failed_upload_leaves_no_parts(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s3_upload, "PART_BYTES", 5 << 20)
        content = bytes(11 << 20)
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ObjectChanged, match=str(tmp_path / "a")):
            s3_server.store.upload(
                bucket / "a", tmp_path / "a", sha256="0" * 64, length=len(content)
            )
        assert "Uploads" not in s3_server.client.list_multipart_uploads(Bucket=bucket.bucket)

    def test_what_arrives_changed_is_sent_again(
        self, s3_server: S3Server, bucket: S3Uri, tmp_path: Path
    ) -> None:
        bodies = [b"c0ntent"]

        def put(real: Any, **given: Any) -> Any:
            return real(**{**given, "Body": bodies.pop()} if bodies else given)

        store(s3_server.client, put_object=put).put(bucket / "a", b"content")
        assert s3_server.store.read(bucket / "a") == b"content"

    def test_unfinished_uploads_are_freed(self, s3_server: S3Server, bucket: S3Uri) -> None:
        for key in ("runs/dead/a", "runs/other/b"):
            s3_server.client.create_multipart_upload(Bucket=bucket.bucket, Key=key)
        upload = Upload(s3_server.client, patient())
        assert upload.abort_unfinished(bucket, lambda key: key.startswith("runs/dead/")) == 1
        left = s3_server.client.list_multipart_uploads(Bucket=bucket.bucket)["Uploads"]
        assert [entry["Key"] for entry in left] == ["runs/other/b"]


def answer(status: int, code: str) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": "said so"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "GetObject")


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "kind", "message"),
        [
            (answer(500, "InternalError"), TransferFailed, "HTTP 500, InternalError"),
            (answer(503, "SlowDown"), TransferFailed, "throttl"),
            (answer(429, "TooManyRequests"), TransferFailed, "throttl"),
            (answer(400, "RequestTimeout"), TransferFailed, "RequestTimeout"),
            (answer(400, "BadDigest"), TransferFailed, "BadDigest"),
            (ReadTimeoutError(endpoint_url="http://x"), TransferFailed, "timeout"),
            (EndpointConnectionError(endpoint_url="http://x"), TransferFailed, "connect"),
            (answer(404, "NoSuchKey"), ObjectMissing, "does not exist"),
            (answer(412, "PreconditionFailed"), ObjectChanged, "changed"),
            (answer(404, "NoSuchBucket"), StorageError, "bucket bkt"),
            (answer(403, "AccessDenied"), StorageError, "access is denied"),
            (answer(403, "ExpiredToken"), StorageError, "has expired"),
            (answer(403, "RequestTimeTooSkewed"), StorageError, "clock"),
            (answer(501, "NotImplemented"), StorageError, "501"),
            (answer(400, "InvalidArgument"), StorageError, "said so"),
            (NoCredentialsError(), StorageError, "no credentials"),
            (ParamValidationError(report="min length: 1"), StorageError, "min length: 1"),
        ],
    )
    def test_translated(self, error: Exception, kind: type[Exception], message: str) -> None:
        with (
            pytest.raises(StorageError, match=message) as raised,
            s3_errors(S3Uri("bkt", "some/key"), "http://s3.example"),
        ):
            raise error
        assert type(raised.value) is kind
        # Kubernetes retries exit code 1, not 4.
        retry_may_help = kind in (TransferFailed, ObjectChanged)
        assert raised.value.exit_code == (1 if retry_may_help else 4)
        assert raised.value.message.startswith("s3://bkt/some/key on http://s3.example: ")
        assert raised.value.hint

    def test_passwords_in_an_endpoint_are_not_shown(self) -> None:
        endpoint = "http://me:canary@127.0.0.1:1"
        with pytest.raises(TransferFailed) as raised, s3_errors(S3Uri("bkt", "a"), "S3"):
            raise EndpointConnectionError(endpoint_url=endpoint)
        assert "canary" not in str(raised.value)

    @pytest.mark.parametrize(
        ("url", "reason"),
        [("http://127.0.0.1:1", "refused"), ("http://no-such-host.invalid", "name")],
    )
    def test_why_a_server_cannot_be_reached(self, url: str, reason: str) -> None:
        client = make_client(S3Settings(endpoint_url=url))
        with pytest.raises(TransferFailed, match=rf"(?i)\(.*{reason}") as raised:
            ObjectStore(client, Retry(attempts=1)).put(S3Uri("bkt", "a"), b"")
        assert raised.value.exit_code == 1

    def test_nor_is_a_query_in_one(self) -> None:
        with pytest.raises(
            StorageError, match=r"`http://h/\?\.\.\.` was not a valid URI"
        ) as raised:
            client = make_client(S3Settings(endpoint_url="http://h/?k=canary"))
            ObjectStore(client).head(S3Uri("bkt", "a"))
        assert "canary" not in str(raised.value)

    def test_a_credential_with_a_line_break_is_not_shown_nor_tried_again(
        self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY\n4711")
        with pytest.raises(StorageError, match="line break") as raised:
            ObjectStore(make_client(S3Settings())).head(S3Uri("bkt", "a"))
        assert type(raised.value) is StorageError
        assert "CANARY" not in str(raised.value)

    def test_a_server_without_tls(self, s3_server: S3Server) -> None:
        url = s3_server.url.replace("http:", "https:")
        client = make_client(S3Settings(endpoint_url=url))
        with pytest.raises(StorageError, match=r"TLS(.|\n)*http://") as raised:
            ObjectStore(client).head(S3Uri("bkt", "a"))
        assert type(raised.value) is StorageError

    def test_no_client(self) -> None:
        with pytest.raises(StorageError, match="Invalid endpoint"):
            make_client(S3Settings(endpoint_url="nonsense"))

    def test_a_real_missing_bucket(self, s3_server: S3Server) -> None:
        with pytest.raises(StorageError, match="bucket never-made"):
            s3_server.store.put(S3Uri("never-made", "a"), b"")


@dataclass
class Outage:
    """A server that throttles each request, for a second, and the time that passes."""

    now: float = 0.0

    def request(self) -> None:
        self.now += 1
        raise answer(503, "SlowDown")

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class TestRetrying:
    def test_pauses_grow_and_differ(self) -> None:
        pauses: list[float] = []

        def fail() -> None:
            raise answer(503, "SlowDown")

        for _ in range(50):
            with pytest.raises(TransferFailed, match="after 6 attempts"):
                Retry(attempts=6, sleep=pauses.append).call(S3Uri("bkt", "a"), fail)
        for attempt, bound in enumerate((0.2, 0.4, 0.8, 1.6, 3.2)):
            drawn = pauses[attempt::5]
            assert len(set(drawn)) == 50
            assert bound / 2 <= min(drawn) < max(drawn) <= bound

    def test_an_outage_within_the_budget(self) -> None:
        """An outage of 3 minutes ends well; a message comes immediately and then every minute."""
        for _ in range(20):
            now, told = [0.0], []

            def heal(now: list[float] = now) -> str:
                if now[0] < 180:
                    raise answer(503, "SlowDown")
                return "there"

            def sleep(seconds: float, now: list[float] = now) -> None:
                now[0] += seconds

            def say(text: str, now: list[float] = now, told: list[float] = told) -> None:
                assert "SlowDown" in text
                told.append(now[0])

            retry = Retry(sleep=sleep, clock=lambda now=now: now[0], say=say)
            assert retry.call(S3Uri("bkt", "a"), heal) == "there"
            assert told[0] == 0
            assert len(told) == 3
            assert all(60 <= b - a <= 80 for a, b in itertools.pairwise(told))
            # Retries do not go on for long after the end of the outage.
            assert now[0] <= 200

    def test_an_outage_beyond_the_budget(self) -> None:
        outage = Outage()
        retry = Retry(sleep=outage.sleep, clock=lambda: outage.now)
        with pytest.raises(TransferFailed, match="SlowDown"):
            retry.call(S3Uri("bkt", "a"), outage.request)
        assert 570 <= outage.now <= 602
        outage.now = 0.0

        def progress() -> int:
            return int(min(outage.now, 3000))

        with pytest.raises(TransferFailed):
            retry.call(S3Uri("bkt", "a"), outage.request, progress)
        assert 3570 <= outage.now <= 3622

    def test_the_variables_of_aws(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def attempts(**variables: str) -> int | None:
            with monkeypatch.context() as patch:
                for name, value in variables.items():
                    patch.setenv(name, value)
                return make_retry(S3Settings()).attempts

        assert attempts() is None
        assert make_retry(S3Settings(retry_seconds=30)).budget_seconds == 30
        assert attempts(AWS_MAX_ATTEMPTS="7") == 7
        assert attempts(AWS_RETRY_MODE="standard") == 3
        assert attempts(AWS_RETRY_MODE="legacy") == 5
        assert attempts(AWS_RETRY_MODE="adaptive", AWS_MAX_ATTEMPTS="9") == 9
        for name in ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"):
            with pytest.raises(UsageError, match=name):
                attempts(**{name: "0"})

    def test_the_message_names_what_limits_the_retries(self) -> None:
        outage = Outage()
        for attempts, expected in ((None, "for up to 600 s"), (3, "attempt 2 of 3")):
            told: list[str] = []
            retry = Retry(
                attempts=attempts, sleep=outage.sleep, clock=lambda: outage.now, say=told.append
            )
            with pytest.raises(TransferFailed):
                retry.call(S3Uri("bkt", "a"), outage.request)
            assert expected in told[0]

    def test_the_message_about_a_damaged_object_promises_only_a_second_fetch(
        self, s3_server: S3Server, bucket: S3Uri
    ) -> None:
        told: list[str] = []
        store = ObjectStore(s3_server.client, Retry(sleep=lambda seconds: None, say=told.append))
        s3_server.client.put_object(
            Bucket=bucket.bucket, Key=f"{bucket.below}a", Body=b"a", Metadata={"sha256": "0" * 64}
        )
        with pytest.raises(ObjectDamaged):
            store.read(bucket / "a")
        assert len(told) == 1
        assert str(bucket / "a") in told[0]
        assert "fetched again" in told[0]
        assert "600 s" not in told[0]

    def test_what_is_final_is_not_tried_again(self) -> None:
        tried: list[int] = []

        def fail() -> None:
            tried.append(1)
            raise answer(403, "AccessDenied")

        with pytest.raises(StorageError, match="access is denied"):
            patient().call(S3Uri("bkt", "a"), fail)
        assert len(tried) == 1

    def test_nothing_listens(self) -> None:
        pauses: list[float] = []
        client = make_client(S3Settings(endpoint_url="http://127.0.0.1:9"))
        with pytest.raises(TransferFailed, match=r"s3://bkt/a on .*: Could not connect"):
            ObjectStore(client, patient(pauses)).head(S3Uri("bkt", "a"))
        assert len(pauses) == 3
