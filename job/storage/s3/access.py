"""How a process gets to S3, and what it keeps of it on this machine; processes hand it on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job.errors import DataError, ObjectChanged, StorageError, TransferFailed
from job.storage.cache import Cache
from job.storage.s3.client import S3Settings, make_client, make_session
from job.storage.s3.fast_get import FastGet
from job.storage.s3.objects import ObjectStore, S3Object

_GIB = 1 << 30


@dataclass(frozen=True)
class Access:
    """The way to S3 and to the cache.

    Attributes:
        settings: of the client.
        cache_root: the cache's folder.
        cache_bytes: what it may hold.
    """

    settings: S3Settings
    cache_root: Path
    cache_bytes: int

    def store(self) -> ObjectStore:
        """Return a client of this process's own."""
        session = make_session()
        client = make_client(self.settings, session=session)
        return ObjectStore(client, get=FastGet(client, session, self.settings.ca_bundle))

    def cache(self) -> Cache:
        """Return this process's view of the cache."""
        return Cache(self.cache_root, self.cache_bytes)

    def name(self, found: S3Object) -> str:
        """Name an object's content: another content has another name."""
        variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        server = self.settings.endpoint_url or next(
            filter(None, map(os.environ.get, variables)), ""
        )
        return f"{server} {found.uri} {found.etag} {found.bytes}"


@contextmanager
def input_errors() -> Iterator[None]:
    """Say of an input that cannot be had what a missing or changed file would be said of.

    Raises:
        DataError: it is missing, refused, or no longer what it was.
        TransferFailed: the network or the server fails; the same command may succeed later.
    """
    try:
        yield
    except TransferFailed:
        raise
    except ObjectChanged as error:
        raise DataError(
            error.message,
            "Leave inputs alone while a job reads them; run the same command again, and what "
            "depends on this object is done anew.",
        ) from error
    except StorageError as error:
        raise DataError(error.message, error.hint) from error
