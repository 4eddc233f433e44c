"""A connection between two processes of the job, for JSON objects, one per line."""

import json
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# Timeout to connect, and to send one object.
SECONDS = 10.0
_MAX_LINE_BYTES = 1 << 16
# TCP closes the connection to an unreachable machine after one minute.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

Message = Mapping[str, Any]


class JsonConnection:
    """A connection for JSON objects, one per line.

    Args:
        connection: a connected socket. This object closes it.

    Attributes:
        open: False after the peer closed the connection or sent an invalid line.
    """

    def __init__(self, connection: socket.socket) -> None:
        for level, option, value in _KEEPALIVE:
            connection.setsockopt(level, option, value)
        connection.settimeout(SECONDS)
        self.connection = connection
        self.open = True
        self._buffer = b""

    def send(self, **message: Any) -> None:
        """Send one object. The object is dropped if the peer has closed the connection."""
        with suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float = 0.0) -> list[Message]:
        """Return the objects that have arrived; clear ``open`` if the peer closed the connection.

        A line that is not a JSON object also clears ``open``. Such a line shows that the peer is
        not a process of the job.

        Args:
            seconds: timeout for the first object.
        """
        if not self.open or not select.select([self.connection], [], [], seconds)[0]:
            return []
        try:
            block = self.connection.recv(_MAX_LINE_BYTES)
        except OSError:
            block = b""
        *lines, self._buffer = (self._buffer + block).split(b"\n")
        self.open = bool(block) and len(self._buffer) < _MAX_LINE_BYTES
        messages: list[Message] = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                self.open = False
                break
            messages.append(message)
        return messages

    def close(self) -> None:
        """Close the connection."""
        self.open = False
        self.connection.close()
