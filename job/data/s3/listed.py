"""The objects of a data set in S3 while it is listed: on disk, so that memory use is bounded."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Self

from job.errors import OutputError
from job.events import Say
from job.storage.s3.responses import S3Object
from job.uri import S3Uri

# As many objects as in a page of a listing.
_BATCH = 1000
_MESSAGE_SECONDS = 10.0
# Two listings can contain the same object, so its key is unique.
_TABLE = "CREATE TABLE objects (key TEXT PRIMARY KEY, bytes INTEGER, etag TEXT) WITHOUT ROWID"


class ListedObjects:
    """Objects of one bucket, sorted by key; threads may add objects.

    Attributes:
        seen: the number of listed objects, including the objects that were not kept.
    """

    def __init__(
        self, file: sqlite3.Connection, root: S3Uri, say: Say, message_seconds: float
    ) -> None:
        self.seen = 0
        self._message_seconds = message_seconds
        self._file = file
        self._root = root
        self._say = say
        self._said = time.monotonic()
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def open(
        cls, path: Path, root: S3Uri, say: Say, message_seconds: float = _MESSAGE_SECONDS
    ) -> Iterator[Self]:
        """Yield an empty collection.

        Args:
            path: a new file for the objects.
            root: the prefix that is listed, for messages.
            say: callback for progress messages.
            message_seconds: time between two messages.

        Raises:
            OutputError: the file cannot be written, because the disk is full.
        """
        with (
            _write_errors(path),
            closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None)) as file,
        ):
            # A killed listing starts again, so nothing must be recovered.
            for setting in ("journal_mode = OFF", "synchronous = OFF"):
                file.execute(f"PRAGMA {setting}")
            file.execute(_TABLE)
            yield cls(file, root, say, message_seconds)

    def add(self, objects: Iterable[S3Object], keep: Callable[[S3Object], bool]) -> None:
        """Add objects; messages state their number.

        Args:
            objects: the objects of the same bucket as ``root``.
            keep: returns whether an object belongs to the data set.
        """
        remaining = iter(objects)
        while batch := list(islice(remaining, _BATCH)):
            rows = [(each.uri.key, each.bytes, each.etag) for each in batch if keep(each)]
            with self._lock:
                self._file.execute("BEGIN")
                self._file.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", rows)
                self._file.execute("COMMIT")
                self.seen += len(batch)
                if time.monotonic() - self._said > self._message_seconds:
                    self._said = time.monotonic()
                    self._say(f"listing {self._root}: {self.seen:,} objects")

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        """Yield key, size in bytes, and ETag of each object."""
        yield from self._file.execute("SELECT key, bytes, etag FROM objects ORDER BY key")


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OutputError(
            f"cannot write {path}: {error}",
            "Free some space on the disk of storage.scratch or JOB_SCRATCH, then run the same "
            "command again.",
        ) from error
