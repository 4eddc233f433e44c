"""Reading objects, or pieces of them, through the cache, ahead of need."""

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from job.storage.cache import Cache
from job.storage.s3.access import Access, input_errors
from job.storage.s3.integrity import check
from job.storage.s3.objects import ObjectStore, S3Object

THREADS = 8


@dataclass(frozen=True)
class Piece:
    """An object as it was when the run was planned, or a piece of it.

    Attributes:
        of: the object.
        start: the piece's first byte; None for the whole object.
        bytes: the piece's length.
        sha256: the piece's digest; None for a whole object, which its ETag vouches for.
    """

    of: S3Object
    start: int | None
    bytes: int
    sha256: str | None


class Fetches(Protocol):
    """Reads one piece; threads share it."""

    def fetch(self, piece: Piece) -> bytes:
        """Return a piece's content."""


class PieceReader:
    """Reads pieces; threads may share it. A copy in another process has its own client."""

    def __init__(self, access: Access, store: ObjectStore | None = None) -> None:
        self.access = access
        self._cache: Cache = access.cache()
        self._store = store
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return PieceReader, (self.access,)

    def fetch(self, piece: Piece) -> bytes:
        """Return a piece's content.

        Raises:
            DataError: it is gone, refused, or no longer what it was.
            TransferFailed: the network or the server fails, attempt after attempt.
        """
        name = self.access.name(piece.of)
        if piece.start is not None:
            name = f"{name} {piece.start} {piece.bytes}"
        content = self._cache.get(name)
        if content is None and piece.start is not None:
            content = self._of_whole(piece)
            if content is not None:
                return content
        if content is None:
            with input_errors():
                content = self._fetch(piece)
            self._cache.put(name, content)
        return content

    def _of_whole(self, piece: Piece) -> bytes | None:
        """Read a piece of an object that the cache has as a file."""
        folder = self._cache.kept_files(self.access.name(piece.of))
        if folder is None or piece.start is None:
            return None
        try:
            descriptor = os.open(folder / piece.of.uri.name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            content = os.pread(descriptor, piece.bytes, piece.start)
        finally:
            os.close(descriptor)
        return content if hashlib.sha256(content).hexdigest() == piece.sha256 else None

    def _fetch(self, piece: Piece) -> bytes:
        found, store = piece.of, self._client()
        if piece.start is None:
            return store.read(found.uri, length=found.bytes, etag=found.etag)
        start, seen = piece.start, set[str]()

        def attempt() -> bytes:
            content = store.read_range(found.uri, start, piece.bytes, etag=found.etag)
            check(found.uri, content, piece.sha256, {"ETag": ""}, seen)
            return content

        return store.retry.call(found.uri, attempt)

    def _client(self) -> ObjectStore:
        with self._lock:
            if self._store is None:
                self._store = self.access.store()
            return self._store


class _Arriving:
    """A piece on its way: its content, or the error that kept it away."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.content: bytes | None = None
        self.error: BaseException | None = None


class FetchAhead:
    """Reads pieces before they are asked for, several at a time.

    The threads are daemons: a process that must end does not wait for the network.

    Args:
        reader: has ``fetch``, which threads call.
        threads: how many at a time.
    """

    def __init__(self, reader: Fetches, threads: int = THREADS) -> None:
        self._reader = reader
        self._wanted: SimpleQueue[tuple[Piece, _Arriving]] = SimpleQueue()
        self._arriving: dict[int, _Arriving] = {}
        for number in range(threads):
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True).start()

    def start(self, pieces: Mapping[int, Piece]) -> None:
        """Begin to read pieces, by numbers under which they are asked for later."""
        for number, piece in pieces.items():
            if number not in self._arriving:
                arriving = self._arriving[number] = _Arriving()
                self._wanted.put((piece, arriving))

    def wait(self, number: int, seconds: float) -> bool:
        """Wait for a piece; returns whether it, or its error, is there."""
        arriving = self._arriving.get(number)
        return arriving is None or arriving.done.wait(seconds)

    def take(self, number: int, piece: Piece) -> bytes:
        """Return a piece, whether or not it was begun, and forget it.

        Raises:
            DataError, TransferFailed: as :meth:`PieceReader.fetch`.
        """
        arriving = self._arriving.pop(number, None)
        if arriving is None:
            return self._reader.fetch(piece)
        arriving.done.wait()
        if arriving.error is not None:
            raise arriving.error
        assert arriving.content is not None  # noqa: S101 - done without an error
        return arriving.content

    def _work(self) -> None:
        while True:
            piece, arriving = self._wanted.get()
            try:
                arriving.content = self._reader.fetch(piece)
            except BaseException as error:
                arriving.error = error
            arriving.done.set()
