"""Reads objects, or pieces of objects, through the cache, before they are needed."""

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from job.storage.cache import Cache
from job.storage.s3.access import Access, input_errors
from job.storage.s3.objects import ObjectStore
from job.storage.s3.responses import S3Object

THREADS = 8


@dataclass(frozen=True)
class Piece:
    """An object, or a piece of it, in the version that was listed when the run was planned.

    Attributes:
        of: the object.
        start: the first byte of the piece; None for the whole object.
        bytes: the length of the piece.
        sha256: the checksum of the piece; None for a whole object, which the ETag identifies.
    """

    of: S3Object
    start: int | None
    bytes: int
    sha256: str | None


class Fetches(Protocol):
    """Reads one piece; threads may share it."""

    def fetch(self, piece: Piece) -> bytes:
        """Return a piece's content."""


class PieceReader:
    """Reads pieces through the cache; threads may share it.

    A copy in another process has its own client.

    Args:
        access: access to S3 and to the cache.
        store: an open object store; None: a store is opened when it is needed.
    """

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
            DataError: the object is missing, has changed, or access is denied.
            TransferFailed: the network or the server failed at every attempt.
        """
        name = self.access.name(piece.of)
        if piece.start is not None:
            name = f"{name} {piece.start} {piece.bytes}"
        content = self._cache.get(name)
        if content is None and piece.start is not None:
            content = self._from_cached_file(piece)
            if content is not None:
                return content
        if content is None:
            with input_errors():
                content = self._fetch(piece)
            self._cache.put(name, content)
        return content

    def _from_cached_file(self, piece: Piece) -> bytes | None:
        """Read a piece of an object that the cache has as a file; None if it does not."""
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
        whole, store = piece.of, self._client()
        if piece.start is None:
            return store.read(whole.uri, length=whole.bytes, etag=whole.etag)
        return store.read_range(
            whole.uri, piece.start, piece.bytes, etag=whole.etag, sha256=piece.sha256
        )

    def _client(self) -> ObjectStore:
        with self._lock:
            if self._store is None:
                self._store = self.access.store()
            return self._store


class _Arriving:
    """The content of a piece that is being read, or its error."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.content: bytes | None = None
        self.error: BaseException | None = None


class FetchAhead:
    """Reads pieces before they are needed, several at a time.

    The threads are daemon threads, so that a process which must stop does not wait for the network.

    Args:
        reader: reads one piece; threads call it.
        threads: number of pieces that are read at the same time.
    """

    def __init__(self, reader: Fetches, threads: int = THREADS) -> None:
        self._reader = reader
        self._wanted: SimpleQueue[tuple[Piece, _Arriving]] = SimpleQueue()
        self._arriving: dict[int, _Arriving] = {}
        for number in range(threads):
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True).start()

    def start(self, pieces: Mapping[int, Piece]) -> None:
        """Start to read pieces; :meth:`take` returns them by these numbers."""
        for number, piece in pieces.items():
            if number not in self._arriving:
                arriving = self._arriving[number] = _Arriving()
                self._wanted.put((piece, arriving))

    def wait(self, number: int, seconds: float) -> bool:
        """Wait for a piece, and return whether the piece or its error is available."""
        arriving = self._arriving.get(number)
        return arriving is None or arriving.done.wait(seconds)

    def take(self, number: int, piece: Piece) -> bytes:
        """Return and drop a piece; a piece that was not started is read now.

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
