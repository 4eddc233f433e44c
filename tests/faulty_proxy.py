"""A proxy in front of an S3 server that injects network faults, on a seeded schedule.

It responds with errors, stalls, resets connections before and after the server has processed a
request, cuts responses off and changes bytes in either direction.
"""

import http.client
import random
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

KINDS = (
    *("reset before", "reset after", "stall", "cut off", "shortened", "changed up", "changed down"),
    *("500", "503", "SlowDown", "RequestTimeout"),
)
_CODES = {"500": "InternalError", "503": "ServiceUnavailable", "SlowDown": "SlowDown"}
_STATUS = {"500": 500, "503": 503, "SlowDown": 503, "RequestTimeout": 400}
_HEAD_END = b"\r\n\r\n"


@dataclass
class Schedule:
    """Decides what happens to each request.

    Attributes:
        seed: random seed of all decisions.
        share: share of the requests with a fault.
        stall_seconds: length of a stall; more than the client's timeout.
        kinds: the kinds of faults.
        injected: the number of faults of each kind so far.
    """

    seed: int
    share: float = 0.3
    stall_seconds: float = 0.4
    kinds: tuple[str, ...] = KINDS
    injected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311
        self._lock = threading.Lock()
        self._next: list[str] = []

    def begin(self, *, share: float, first: str | None = None) -> None:
        """Start a transfer; ``first`` is the fault of its first request."""
        with self._lock:
            self.share = share
            self._next = [first] if first else []

    def fault(self, method: str, body: bytes) -> str:
        """Return the fault of a request; empty for no fault."""
        with self._lock:
            kind = ""
            if self._next:
                kind = self._next.pop()
            elif self._random.random() < self.share:
                kind = self._random.choice(self.kinds)
            # An empty body has no bytes to change.
            if (kind == "changed up" and not body) or (
                kind in ("cut off", "shortened", "changed down") and method != "GET"
            ):
                kind = "reset after"
            # The error code is in the body, and a response to HEAD has no body.
            if kind == "RequestTimeout" and method == "HEAD":
                kind = "500"
            if kind:
                self.injected[kind] += 1
            return kind

    def cut(self, content: bytes) -> bytes:
        """Return a shorter beginning of some bytes."""
        with self._lock:
            return content[: self._random.randrange(len(content))]

    def changed(self, content: bytes) -> bytes:
        """Return the bytes with one byte changed."""
        with self._lock:
            place = self._random.randrange(len(content))
            other = content[place] ^ self._random.randrange(1, 256)
        return content[:place] + bytes([other]) + content[place + 1 :]


@dataclass(frozen=True)
class Request:
    """A request of a client."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Handler(socketserver.BaseRequestHandler):
    """One connection of a client."""

    server: "Proxy"

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        try:
            while (request := self.receive()) is not None and self.answer(request):
                pass
        except OSError:
            return

    def receive(self) -> Request | None:
        """Return the next request; None at the end of the connection."""
        while _HEAD_END not in self.buffer:
            if not self.more():
                return None
        head, _, self.buffer = self.buffer.partition(_HEAD_END)
        first, *lines = head.decode("latin1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        length = int(headers.get("content-length", 0))
        if headers.pop("expect", ""):
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(self.buffer) < length:
            if not self.more():
                return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        method, target, _ = first.split(" ")
        return Request(method, target, headers, body)

    def more(self) -> bool:
        block = self.request.recv(1 << 20)
        self.buffer += block
        return bool(block)

    def answer(self, request: Request) -> bool:
        """Handle a request; returns whether the connection stays open."""
        schedule = self.server.schedule
        kind = schedule.fault(request.method, request.body)
        if kind == "reset before":
            return self.reset()
        if kind in _STATUS:
            self.refuse(request, kind)
            return True
        body = request.body
        if kind == "changed up":
            body = schedule.changed(body)
        status, headers, content = self.server.forward(request, body)
        if kind == "reset after":
            return self.reset()
        if kind == "stall":
            self.server.ended.wait(schedule.stall_seconds)
            return False
        self.reply(request, kind, status, headers, content)
        return kind != "cut off"

    def reply(
        self,
        request: Request,
        kind: str,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
    ) -> None:
        """Send the server's response, perhaps with a fault."""
        schedule, sent = self.server.schedule, content
        length = next((value for name, value in headers if name.lower() == "content-length"), "0")
        if request.method != "HEAD":
            if kind in ("cut off", "shortened") and content:
                sent = schedule.cut(content)
            if kind == "changed down" and content:
                sent = schedule.changed(content)
            length = str(len(content) if kind == "cut off" else len(sent))
        passed = "".join(
            f"{name}: {value}\r\n"
            for name, value in headers
            if name.lower() not in ("content-length", "transfer-encoding", "connection")
        )
        head = f"HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n{passed}\r\n"
        self.request.sendall(head.encode("latin1") + sent)

    def refuse(self, request: Request, kind: str) -> None:
        """Send an error response in the format of S3."""
        code = _CODES.get(kind, kind)
        body = f"<Error><Code>{code}</Code><Message>as scheduled</Message></Error>".encode()
        head = f"HTTP/1.1 {_STATUS[kind]} -\r\nContent-Type: application/xml\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self.request.sendall(head.encode() + (b"" if request.method == "HEAD" else body))

    def reset(self) -> bool:
        """Close the connection with RST."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


class Proxy(socketserver.ThreadingTCPServer):
    """The proxy; its schedule decides about faults."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str, schedule: Schedule) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream).netloc
        self.schedule = schedule
        self.ended = threading.Event()
        self.local = threading.local()

    @property
    def url(self) -> str:
        """The URL of the proxy."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def shutdown_request(self, request: Any) -> None:
        # No shutdown before, because it would send FIN instead of RST.
        self.close_request(request)

    def forward(self, request: Request, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send the request to the server; return status, headers and content."""
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        headers = {name: value for name, value in request.headers.items() if name != "connection"}
        headers["content-length"] = str(len(body))
        if request.method in ("GET", "HEAD", "DELETE") and not body:
            del headers["content-length"]
        connection.request(request.method, request.target, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content


@contextmanager
def faulty(upstream: str, schedule: Schedule) -> Iterator[Proxy]:
    """Run a proxy in front of a server."""
    with Proxy(upstream, schedule) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            proxy.shutdown()
            thread.join()
