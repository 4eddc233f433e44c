"""A lower limit of the speed of responses.

A timeout of a socket limits the time without any byte. A server that sends one byte every few
seconds never reaches this timeout. The connections of this module count the bytes of each response,
header and body, and fail if a response is too slow.

Responses to POST have no limit, because S3 sends single spaces while it completes a multipart
upload.
"""

import io
import time
from http.client import HTTPResponse
from typing import Any

# Far below the share of one of 16 connections on a slow line.
_LEAST_BYTES_PER_S = 1024


class _PacedStream(io.RawIOBase):
    """Reads a response, and fails if its bytes arrive too slowly.

    The time between two reads does not count, because the reader can be slow itself.

    Args:
        stream: reads from the socket.
        seconds: length of the interval in which the limit is applied.
    """

    def __init__(self, stream: io.RawIOBase, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds
        self._waited = 0.0
        self._bytes = 0
        self._began = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read from the socket.

        Raises:
            TimeoutError: no byte arrived in time, or too few bytes.
        """
        before = time.monotonic()
        count = self._stream.readinto(buffer)
        # The server needs the time before the first byte for its work. The socket limits it.
        if not self._began:
            self._began = True
            return count
        self._waited += time.monotonic() - before
        self._bytes += count or 0
        if self._waited > self._seconds and count:
            if self._bytes < _LEAST_BYTES_PER_S * self._waited:
                raise TimeoutError(
                    f"the response is too slow: {self._bytes} bytes in {self._waited:.0f} s"
                )
            self._waited, self._bytes = 0.0, 0
        return count

    def close(self) -> None:
        """Close the stream; the socket is closed when its connection is closed too."""
        if not self.closed:
            self._stream.close()
        super().close()


class _PacedResponse(HTTPResponse):
    """A response whose bytes must arrive with the least speed."""

    def __init__(
        self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        seconds = sock.gettimeout()
        if seconds is not None and method != "POST":
            self.fp = io.BufferedReader(_PacedStream(self.fp.detach(), seconds))


def limit_client(client: Any) -> None:
    """Apply the limit to all connections that a new boto3 client will open.

    botocore has no public setting for the class of its connections.

    Args:
        client: the client; it has sent no request yet.
    """
    pools = client._endpoint.http_session._pool_classes_by_scheme
    for scheme, pool in dict(pools).items():
        connection = type("PacedConnection", (pool.ConnectionCls,), _RESPONSES)
        pools[scheme] = type("PacedPool", (pool,), {"ConnectionCls": connection})


def limit_pool(pool: Any) -> None:
    """Apply the limit to all connections that a urllib3 connection pool will open."""
    pool.ConnectionCls = type("PacedConnection", (pool.ConnectionCls,), _RESPONSES)


_RESPONSES = {"response_class": _PacedResponse}
