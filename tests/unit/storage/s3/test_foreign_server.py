"""Servers that are no S3 servers, and rejected requests: the error states what to correct."""

import re
import socket
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from tls_port import tls_port
from unusual_s3 import BUCKET, Unusual

from job.errors import DataError, ObjectMissing, StorageError, TransferFailed
from job.storage.s3.access import input_errors
from job.storage.s3.client import S3Settings, make_client
from job.storage.s3.objects import ObjectStore
from job.storage.s3.retry import Retry
from job.storage.s3.upload import PART_BYTES


class TestForeignServers:
    """The endpoint names a server that is not the S3 server: the error names server and bucket."""

    @pytest.mark.parametrize("habit", ["html", "redirects", "plain_http_on_tls"])
    def test_each_request_fails_at_once(self, server: Unusual, tmp_path: Path, habit: str) -> None:
        setattr(server.habits, habit, True)
        store, uri = server.store(), BUCKET / "a"
        large = tmp_path / "large"
        large.write_bytes(b"x" * (PART_BYTES + 1))
        for act in (
            lambda: store.head(uri),
            lambda: store.read(uri),
            lambda: store.read_range(uri, 0, 3),
            lambda: store.put(uri, b"new"),
            lambda: store.upload(uri, large, sha256="0" * 64, length=PART_BYTES + 1),
            lambda: list(store.list(BUCKET)),
            lambda: store.delete([uri]),
        ):
            server.requests.clear()
            with pytest.raises(StorageError, match="s3://bucket/") as raised:
                act()
            assert type(raised.value) is StorageError
            assert raised.value.exit_code == 4
            assert f" on {server.url}: " in raised.value.message
            assert "endpoint" in raised.value.hint
            # HEAD is repeated as GET, and botocore asks once for a bucket's region.
            assert server.requests.total() <= 3

    @pytest.mark.parametrize(
        "url",
        [
            "127.0.0.1:9000",
            "s3.example",
            "http://",
            "ftp://host:1",
            "http://h:1a",
            "http://h:99999",
        ],
    )
    def test_an_invalid_endpoint(self, url: str) -> None:
        with pytest.raises(StorageError, match=re.escape(url)) as raised:
            make_client(S3Settings(endpoint_url=url))
        assert "https://HOST:PORT" in raised.value.hint

    def test_an_invalid_region(self) -> None:
        with pytest.raises(StorageError, match="us east") as raised:
            make_client(S3Settings(region="us east"))
        assert "HOST:PORT" not in raised.value.hint

    def test_an_endpoint_that_contains_the_bucket(self, server: Unusual) -> None:
        """The server reads the name of the bucket in the path as the first part of a key."""
        client = make_client(S3Settings(endpoint_url=f"{server.url}/bucket"))
        with pytest.raises(StorageError, match="s3://bucket/set") as raised:
            list(ObjectStore(client).list(BUCKET / "set"))
        assert type(raised.value) is StorageError
        assert "endpoint" in raised.value.hint

    def test_the_target_of_a_redirect(self, server: Unusual) -> None:
        server.habits.redirects = True
        for act in (
            lambda: server.store().head(BUCKET / "a"),
            lambda: list(server.store().list(BUCKET)),
        ):
            with pytest.raises(StorageError, match=r"https://s3\.example") as raised:
                act()
            assert "canary" not in str(raised.value)

    def test_the_page_of_an_overloaded_proxy_is_temporary(self, server: Unusual) -> None:
        server.habits.html, server.habits.status = True, 503
        with pytest.raises(TransferFailed):
            server.store().put(BUCKET / "a", b"")

    def test_a_tls_port_that_closes_the_connection(self, tmp_path: Path) -> None:
        with tls_port(tmp_path) as port:
            client = make_client(S3Settings(endpoint_url=f"http://127.0.0.1:{port}"))
            with pytest.raises(StorageError, match="TLS") as raised:
                ObjectStore(client).read(BUCKET / "a")
        assert type(raised.value) is StorageError
        assert "https://" in raised.value.hint

    def test_a_tls_handshake_that_the_server_breaks_off_is_repeated(self) -> None:
        """A load balancer closes the connection while its server restarts."""
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def close_each() -> None:
                with suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        # With data left to read, the close would be a reset, which has another
                        # error.
                        connection.recv(4096)
                        connection.close()

            Thread(target=close_each, daemon=True).start()
            url = f"https://127.0.0.1:{listener.getsockname()[1]}"
            store = ObjectStore(
                make_client(S3Settings(endpoint_url=url)), Retry(attempts=2, sleep=lambda _: None)
            )
            with pytest.raises(TransferFailed, match="2 attempts"):
                store.put(BUCKET / "a", b"")

    @pytest.mark.parametrize("by", ["manifest", "variable"])
    def test_a_missing_file_of_certificates(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
    ) -> None:
        missing = str(tmp_path / "ca.pem")
        if by == "variable":
            monkeypatch.setenv("AWS_CA_BUNDLE", missing)
        with pytest.raises(StorageError, match=missing) as raised:
            make_client(S3Settings(ca_bundle=missing if by == "manifest" else None))
        assert raised.value.exit_code == 4


class TestRejectedHeads:
    """A response to HEAD has no body, so HEAD is repeated as GET."""

    @pytest.mark.parametrize(
        ("status", "code", "words", "kind", "exit_code"),
        [
            (400, "ExpiredToken", "expired", StorageError, 4),
            (403, "InvalidAccessKeyId", "access key", StorageError, 4),
            (403, "SignatureDoesNotMatch", "secret key", StorageError, 4),
            (403, "AccessDenied", "denied", StorageError, 4),
            (403, "RequestTimeTooSkewed", "clock", StorageError, 4),
            (400, "AuthorizationHeaderMalformed", "region", StorageError, 4),
            (403, "InvalidObjectState", "archived", StorageError, 4),
            (404, "NoSuchBucket", "bucket bucket", StorageError, 4),
            (404, "NoSuchKey", "object does not exist", ObjectMissing, 4),
        ],
    )
    def test_the_error_states_the_reason(
        self,
        server: Unusual,
        tmp_path: Path,
        status: int,
        code: str,
        words: str,
        kind: type[StorageError],
        exit_code: int,
    ) -> None:
        server.habits.rejects = status, code
        for act in (
            lambda: server.store().head(BUCKET / "a"),
            lambda: server.store().download(BUCKET / "a", tmp_path / "a"),
        ):
            with pytest.raises(StorageError, match=words) as raised:
                act()
            assert type(raised.value) is kind
            assert raised.value.exit_code == exit_code
            assert f" on {server.url}: " in raised.value.message
            assert server.requests["GET"] > 0
            # As an input, each of these is an error of the data.
            with pytest.raises(DataError) as as_input, input_errors():
                act()
            assert as_input.value.exit_code == 4

    def test_a_head_that_only_get_replaces(self, server: Unusual) -> None:
        uri = server.hold("a", b"content")
        expected = server.store().head(uri)
        server.habits.rejects_heads = True
        assert server.store().head(uri) == expected
