"""A connection between two processes of the job that carries JSON objects, one a line."""

import json
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# To connect, and to send one object.
SECONDS = 10.0
_LONGEST_LINE = 1 << 16
# A machine that is cut off is given up after a minute.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

News = Mapping[str, Any]


class JsonConnection:
    """A connection that carries JSON objects, one a line.

    Args:
        connection: is the line's from now on.
    """

    def __init__(self, connection: socket.socket) -> None:
        for level, option, value in _KEEPALIVE:
            connection.setsockopt(level, option, value)
        connection.settimeout(SECONDS)
        self.connection = connection
        self.open = True
        self._rest = b""

    def send(self, **news: Any) -> None:
        """Send one object; what the other side has no ear for any more is dropped."""
        with suppress(OSError):
            self.connection.sendall(json.dumps(news).encode() + b"\n")

    def receive(self, seconds: float = 0.0) -> list[News]:
        """Return what has come, waiting at most so long for the first; clears ``open`` at the end.

        A line that is no JSON object ends the connection: whoever sends it is none of ours.
        """
        if not self.open or not select.select([self.connection], [], [], seconds)[0]:
            return []
        try:
            block = self.connection.recv(_LONGEST_LINE)
        except OSError:
            block = b""
        *lines, self._rest = (self._rest + block).split(b"\n")
        self.open = bool(block) and len(self._rest) < _LONGEST_LINE
        found: list[News] = []
        for line in lines:
            try:
                news = json.loads(line)
            except ValueError:
                news = None
            if not isinstance(news, dict):
                self.open = False
                break
            found.append(news)
        return found

    def close(self) -> None:
        """End the connection."""
        self.open = False
        self.connection.close()
