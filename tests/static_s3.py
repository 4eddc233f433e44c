"""A small, fast S3 server for a folder: GET, HEAD and listings, without signatures and writes.

``python tests/static_s3.py FOLDER`` serves FOLDER/BUCKET/KEY on a free port, and prints the port.
It measures how fast the job reads; moto's server needs more time for a request than the job.
"""

import hashlib
import os
import re
import socket
import socketserver
import sys
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_HEAD_END = b"\r\n\r\n"
_DATE = formatdate(0, usegmt=True)


class Objects:
    """The served objects; their checksums are computed once."""

    def __init__(self, root: Path) -> None:
        self.files: dict[str, tuple[Path, int, str]] = {}
        for path in sorted(root.rglob("*")):
            if path.is_file():
                digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                self.files[str(path.relative_to(root))] = (path, path.stat().st_size, digest)

    def listing(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        delimiter = query.get("delimiter", [""])[0]
        after = query.get("continuation-token", [""])[0]
        entries, folders = [], set()
        names = [name.partition("/")[2] for name in self.files if name.startswith(f"{bucket}/")]
        for key in sorted(names):
            if not key.startswith(prefix) or key <= after:
                continue
            inner, delimited, _ = key.removeprefix(prefix).partition(delimiter or "\0")
            if delimited:
                folders.add(f"{prefix}{inner}{delimiter}")
                continue
            _, size, digest = self.files[f"{bucket}/{key}"]
            entries.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>&quot;{digest}&quot;"
                "</ETag><LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
            )
            if len(entries) == 1000:
                more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(key)}"
                entries.append(f"{more}</NextContinuationToken>")
                break
        entries += [
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders
        ]
        return f"<ListBucketResult>{''.join(entries)}</ListBucketResult>".encode()


class Handler(socketserver.BaseRequestHandler):
    """Handles the requests of one connection."""

    objects: Objects

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = b""
        while True:
            while _HEAD_END not in buffer:
                block = self.request.recv(65536)
                if not block:
                    return
                buffer += block
            head, _, buffer = buffer.partition(_HEAD_END)
            self.answer(head.decode("latin1"))

    def answer(self, head: str) -> None:
        method, target, _ = head.split(" ", 2)
        address = urlsplit(target)
        name = unquote(address.path).strip("/")
        if "/" not in name:
            body = self.objects.listing(name, parse_qs(address.query))
            self.send(200, len(body), "Content-Type: application/xml\r\n", body)
            return
        if name not in self.objects.files:
            self.send(404, 0, "", b"")
            return
        path, size, digest = self.objects.files[name]
        headers = f'ETag: "{digest}"\r\nLast-Modified: {_DATE}\r\nAccept-Ranges: bytes\r\n'
        if method == "HEAD":
            self.send(200, size, headers, b"")
            return
        start, count, status = 0, size, 200
        if ranged := re.search(r"\r\nrange: *bytes=(\d+)-(\d*)", head, re.IGNORECASE):
            start = int(ranged[1])
            last = min(int(ranged[2] or size - 1), size - 1)
            count, status = last - start + 1, 206
            headers += f"Content-Range: bytes {start}-{last}/{size}\r\n"
        self.send(status, count, headers, b"")
        with path.open("rb") as file:
            while count:
                sent = os.sendfile(self.request.fileno(), file.fileno(), start, count)
                start, count = start + sent, count - sent

    def send(self, status: int, length: int, headers: str, body: bytes) -> None:
        head = f"HTTP/1.1 {status} -\r\nContent-Length: {length}\r\nDate: {_DATE}\r\n{headers}\r\n"
        self.request.sendall(head.encode("latin1") + body)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    from job.process.parent_death import die_with_parent

    die_with_parent(os.getppid())
    Handler.objects = Objects(Path(sys.argv[1]))
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
