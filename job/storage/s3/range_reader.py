"""An object as a seekable file."""

import io

from job.storage.s3.access import input_errors
from job.storage.s3.objects import ObjectStore
from job.storage.s3.prefetch import FetchAhead, Piece
from job.storage.s3.responses import S3Object

_BLOCK_BYTES = 8 << 20
_AHEAD = 3


class RangeReader(io.RawIOBase):
    """Reads an object in blocks, a few blocks in advance. A broken transfer repeats only its block.

    Args:
        store: access to S3.
        entry: the object; if its ETag changes, reading fails with a DataError.
        block_bytes: the size of a block.
    """

    def __init__(
        self, store: ObjectStore, entry: S3Object, *, block_bytes: int = _BLOCK_BYTES
    ) -> None:
        self._store = store
        self._object = entry
        self._block_bytes = block_bytes
        self._ahead = FetchAhead(self, threads=_AHEAD)
        self._position = 0
        self._block = -1
        self._content = b""

    def fetch(self, piece: Piece) -> bytes:
        """Read one block; threads call it."""
        with input_errors():
            start = piece.start or 0
            return self._store.read_range(piece.of.uri, start, piece.bytes, etag=piece.of.etag)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position and return it.

        Raises:
            ValueError: the position would be negative.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._object.bytes}
        position = base[whence] + offset
        if position < 0:
            raise ValueError(f"expected a position of at least 0, found {position}")
        self._position = position
        return position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read up to the end of the current block, at most as much as the buffer can store."""
        if self._position >= self._object.bytes or not len(buffer):
            return 0
        number, start = divmod(self._position, self._block_bytes)
        if number != self._block:
            self._content, self._block = self._take(number), number
        part = self._content[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _take(self, number: int) -> bytes:
        last = (self._object.bytes - 1) // self._block_bytes
        sequential = number == self._block + 1
        until = min(last, number + _AHEAD) if sequential else number
        self._ahead.start({each: self._piece(each) for each in range(number, until + 1)})
        return self._ahead.take(number, self._piece(number))

    def _piece(self, number: int) -> Piece:
        start = number * self._block_bytes
        return Piece(self._object, start, min(self._block_bytes, self._object.bytes - start), None)
