"""A small S3 server in memory with the habits of real servers, each behind a switch.

Ceph RGW, rclone and s3rver differ from AWS and from moto: they ignore headers, leave out elements
of responses, throttle, and fail for a while. ``Habits`` switches each of these habits on. The
server checks no signatures.
"""

import hashlib
import io
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from email.utils import formatdate
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from job.storage.s3.client import S3Settings, make_client
from job.storage.s3.objects import ObjectStore
from job.storage.s3.retry import Retry
from job.uri import S3Uri

BUCKET = S3Uri("bucket", "")
_DRIP_SECONDS = 0.02
_PAGE = "<html><head><title>Welcome</title></head><body><p>It works<br></body></html>"


@dataclass
class Habits:
    """The switches.

    Attributes:
        ignores_if_match: the header If-Match has no effect (rclone, s3rver).
        first_version_listings: the parameters of the second version of listings have no effect.
        listings_without_token: a truncated listing has no token for the next page.
        without_etag: responses have no ETag.
        without_message: errors have no Message.
        throttles: so many requests are rejected with 503 SlowDown.
        away_until: the server closes connections without a response until this time by ``clock``.
        clock: returns a time in seconds.
        leaves_at: a PUT of a key that contains this text starts an outage; only once.
        leaves_for: how long this outage lasts, in seconds.
        flips_a_byte: GET changes one byte of each object in the same way, as a damaged disk does.
        html: each response is a page, as from a web server.
        status: the status of these pages.
        rejects_heads: HEAD of an object is rejected with 403, as with a URL signed for GET.
        redirects: each response is a redirect without a region.
        plain_http_on_tls: each response is the error of a TLS port.
        encrypts: the ETag is no MD5, and the header of the encryption says so.
        rejects: status and code of the response to each request for an object; the body of a
            response to HEAD is missing.
        page_keys: number of keys in a page of a listing.
        etags: the form of ETags in headers; ``{}`` stands for the MD5.
        ignores_range: the header Range has no effect.
        unknown_size: Content-Range contains ``*`` instead of the size of the object.
        chunked: responses to GET have no Content-Length.
        drips: so many responses are sent byte by byte, with a pause before each byte.
        heads_without_size: responses to HEAD have no Content-Length.
        headers: headers of each response.
        needs_md5: a PUT without Content-MD5 is rejected, as in a bucket with Object Lock.
        rewrites: changes the XML of each response.
        aborts_uploads: so many multipart uploads are aborted before their next part, as by a
            lifecycle rule.
        times_ahead: seconds by which the times of objects are ahead of the header Date and of the
            client, as if another machine wrote them.
    """

    ignores_if_match: bool = False
    first_version_listings: bool = False
    listings_without_token: bool = False
    without_etag: bool = False
    without_message: bool = False
    throttles: int = 0
    away_until: float = 0.0
    clock: Callable[[], float] = time.monotonic
    leaves_at: str = ""
    leaves_for: float = 0.0
    flips_a_byte: bool = False
    html: bool = False
    status: int = 200
    rejects_heads: bool = False
    redirects: bool = False
    plain_http_on_tls: bool = False
    encrypts: bool = False
    rejects: tuple[int, str] | None = None
    page_keys: int = 1000
    etags: str = '"{}"'
    ignores_range: bool = False
    unknown_size: bool = False
    chunked: bool = False
    drips: int = 0
    heads_without_size: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    needs_md5: bool = False
    rewrites: Callable[[str], str] | None = None
    aborts_uploads: int = 0
    times_ahead: float = 0.0

    def reset(self) -> None:
        """Switch all habits off."""
        for each in fields(self):
            setattr(self, each.name, getattr(Habits(), each.name))


@dataclass(frozen=True)
class Stored:
    """An object of the server."""

    content: bytes
    metadata: Mapping[str, str]
    at: float

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'


@dataclass
class Unusual:
    """The running server.

    Attributes:
        url: its URL.
        habits: the switches; a test can change them at any time.
        objects: the objects of the only bucket, by key.
        requests: the number of requests by method; listings count as LIST.
        uploads: keys of unfinished multipart uploads by upload id.
        parts: the parts of multipart uploads, by upload id and number.
    """

    url: str
    habits: Habits = field(default_factory=Habits)
    objects: dict[str, Stored] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    uploads: dict[str, str] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def hold(self, key: str, content: bytes, **metadata: str) -> S3Uri:
        """Store an object, as another program does."""
        with self.lock:
            self.objects[key] = Stored(content, metadata, time.time())
        return BUCKET / key

    def store(self, retry: Retry | None = None) -> ObjectStore:
        """Return an object store on the server."""
        quick = retry or Retry(attempts=4, sleep=lambda seconds: None)
        # Creating a client takes 0.1 s of CPU time.
        return ObjectStore(self.client, quick)

    @cached_property
    def client(self) -> Any:
        """The client of all stores."""
        return make_client(S3Settings(endpoint_url=self.url), read_seconds=2.0)


class _Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    state: Unusual

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def finish(self) -> None:
        # The client closes the connection of a response that is too slow.
        with suppress(OSError):
            super().finish()

    def handle_expect_100(self) -> bool:
        accepted = super().handle_expect_100()
        # Otherwise the client waits for a second, because the answer stays in the buffer.
        self.wfile.flush()
        return accepted

    def _do(self) -> None:
        with self.state.lock:
            dripping = self.state.habits.drips > 0
            self.state.habits.drips -= dripping
        if not dripping:
            self._handle()
            return
        connection, self.wfile = self.wfile, io.BytesIO()
        self._handle()
        content, self.wfile = self.wfile.getvalue(), connection
        for place in range(len(content)):
            time.sleep(_DRIP_SECONDS)
            self.wfile.write(content[place : place + 1])
            self.wfile.flush()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        address = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(address.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(address.path).lstrip("/").partition("/")
        with self.state.lock:
            habits = self.state.habits
            listing = self.command == "GET" and not key
            self.state.requests["LIST" if listing else self.command] += 1
            if self.command == "PUT" and habits.leaves_at and habits.leaves_at in key:
                habits.leaves_at = ""
                habits.away_until = habits.clock() + habits.leaves_for
            if habits.clock() < habits.away_until:
                self.close_connection = True
            elif habits.html:
                self._send(habits.status, _PAGE.encode(), {"Content-Type": "text/html"})
            elif habits.plain_http_on_tls:
                text = b"Client sent an HTTP request to an HTTPS server.\n"
                self._send(400, text, {"Content-Type": "text/plain"})
            elif habits.redirects:
                target = {"Location": "https://s3.example/?X-Amz-Signature=canary"}
                self._send(301, _PAGE.encode(), target)
            elif habits.throttles:
                habits.throttles -= 1
                self._fail(503, "SlowDown")
            elif bucket != BUCKET.bucket:
                self._fail(404, "NoSuchBucket")
            elif habits.rejects_heads and key and self.command == "HEAD":
                self._fail(403, "AccessDenied")
            elif habits.needs_md5 and self.command == "PUT" and "content-md5" not in self.headers:
                self._fail(400, "InvalidRequest")
            elif habits.rejects and key:
                self._fail(*habits.rejects)
            else:
                self._answer(key, query, body)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = _do  # noqa: N815

    def _answer(self, key: str, query: Mapping[str, str], body: bytes) -> None:
        if self.command == "GET" and "uploads" in query:
            self._list_uploads(query)
        elif not key:
            self._list(query)
        elif self.command == "POST" and "uploads" in query:
            name = f"upload-{len(self.state.uploads):04d}"
            self.state.uploads[name] = key
            text = f"<R><Key>{escape(key)}</Key><UploadId>{name}</UploadId></R>"
            self._send(200, text.encode())
        elif "uploadId" in query and self.command != "DELETE":
            self._receive(key, query["uploadId"], int(query.get("partNumber", 0)), body)
        elif self.command == "DELETE":
            self.state.objects.pop(key, None)
            self.state.uploads.pop(query.get("uploadId", ""), None)
            self._send(204, b"")
        elif self.command == "PUT":
            metadata = {
                name.lower().removeprefix("x-amz-meta-"): value
                for name, value in self.headers.items()
                if name.lower().startswith("x-amz-meta-")
            }
            self.state.hold(key, body, **metadata)
            self._send(200, b"", self._etag(self.state.objects[key]))
        else:
            self._read(key)

    def _receive(self, key: str, upload: str, number: int, body: bytes) -> None:
        """Store a part of a multipart upload, or complete the upload."""
        if number and self.state.habits.aborts_uploads:
            self.state.habits.aborts_uploads -= 1
            self.state.uploads.pop(upload, None)
        if upload not in self.state.uploads:
            self._fail(404, "NoSuchUpload")
        elif number:
            self.state.parts[upload, number] = body
            self._send(200, b"", self._etag(Stored(body, {}, 0.0)))
        else:
            del self.state.uploads[upload]
            parts = [part for (name, _), part in sorted(self.state.parts.items()) if name == upload]
            self.state.hold(key, b"".join(parts))
            self._send(200, b"<R><ETag>complete</ETag></R>")

    def _read(self, key: str) -> None:
        habits, stored = self.state.habits, self.state.objects.get(key)
        if stored is None:
            self._fail(404, "NoSuchKey")
            return
        pinned = self.headers.get("if-match")
        # If-Match compares strongly: a weak ETag equals no other. ETags without quotes are invalid.
        if pinned and pinned != self._strong(stored) and not habits.ignores_if_match:
            self._fail(412, "PreconditionFailed")
            return
        content, status = stored.content, 200
        if habits.flips_a_byte and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        headers = {
            "Last-Modified": formatdate(stored.at + habits.times_ahead, usegmt=True),
            **{f"x-amz-meta-{name}": value for name, value in stored.metadata.items()},
            **self._etag(stored),
        }
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if ranged and not habits.ignores_range:
            start, whole = int(ranged[1]), len(content)
            if start >= whole:
                self._fail(416, "InvalidRange")
                return
            content = content[start : int(ranged[2]) + 1 if ranged[2] else None]
            size = "*" if habits.unknown_size else whole
            headers["Content-Range"] = f"bytes {start}-{start + len(content) - 1}/{size}"
            status = 206
        self._send(status, content, headers)

    def _etag(self, stored: Stored) -> dict[str, str]:
        if self.state.habits.without_etag:
            return {}
        etag = self.state.habits.etags.format(self._strong(stored).strip('"'))
        if self.state.habits.encrypts:
            return {"ETag": etag, "x-amz-server-side-encryption": "aws:kms"}
        return {"ETag": etag}

    def _strong(self, stored: Stored) -> str:
        if self.state.habits.without_etag:
            return ""
        return f'"{"0" * 32}"' if self.state.habits.encrypts else stored.etag

    def _list(self, query: Mapping[str, str]) -> None:
        habits = self.state.habits
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = "" if habits.first_version_listings else query.get("continuation-token", "")
        entries: dict[str, str] = {}
        truncated = ""
        for key in sorted(self.state.objects):
            if not key.startswith(prefix):
                continue
            inner, found, _ = key.removeprefix(prefix).partition(delimiter or "\0")
            name = f"{prefix}{inner}{delimiter}" if found else key
            if name <= after or name in entries:
                continue
            if len(entries) == habits.page_keys:
                truncated = list(entries)[-1]
                break
            stored = self.state.objects[key]
            etag = "" if habits.without_etag else f"<ETag>{escape(stored.etag)}</ETag>"
            at = time.gmtime(stored.at + habits.times_ahead)
            date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", at)
            entries[name] = (
                f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
                if found
                else f"<Contents><Key>{escape(key)}</Key><Size>{len(stored.content)}</Size>{etag}"
                f"<LastModified>{date}</LastModified></Contents>"
            )
        more = f"<IsTruncated>{str(bool(truncated)).lower()}</IsTruncated>"
        if truncated and not habits.listings_without_token:
            token = "same" if habits.first_version_listings else truncated
            more += f"<NextContinuationToken>{escape(token)}</NextContinuationToken>"
        text = f"<ListBucketResult>{more}{''.join(entries.values())}</ListBucketResult>"
        self._send(200, text.encode())

    def _list_uploads(self, query: Mapping[str, str]) -> None:
        after = query.get("upload-id-marker", "")
        names = sorted(name for name in self.state.uploads if name > after)
        page = names[: self.state.habits.page_keys]
        text = "".join(
            f"<Upload><Key>{escape(self.state.uploads[name])}</Key><UploadId>{name}</UploadId>"
            "</Upload>"
            for name in page
        )
        if len(page) < len(names):
            text += f"<IsTruncated>true</IsTruncated><NextUploadIdMarker>{page[-1]}"
            text += f"</NextUploadIdMarker><NextKeyMarker>{self.state.uploads[page[-1]]}"
            text += "</NextKeyMarker>"
        self._send(200, f"<R>{text}</R>".encode())

    def _fail(self, status: int, code: str) -> None:
        message = "" if self.state.habits.without_message else "<Message>as set</Message>"
        self._send(status, f"<Error><Code>{code}</Code>{message}</Error>".encode())

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        if self.state.habits.rewrites and body.startswith(b"<"):
            body = self.state.habits.rewrites(body.decode()).encode()
        self.send_response(status)
        every = {"Content-Type": "application/xml", **(headers or {})}
        for name, value in {**every, **self.state.habits.headers}.items():
            self.send_header(name, value)
        if self.command == "GET" and self.state.habits.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        elif self.command == "HEAD" and self.state.habits.heads_without_size:
            self.close_connection = True
        elif status != 204 and "Content-Length" not in self.state.habits.headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def unusual() -> Iterator[Unusual]:
    """Run a server with no habits switched on."""
    state = Unusual("")
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield state
        finally:
            server.shutdown()
