"""Settings of S3 and of the local cache, which can be passed to another process."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job.errors import (
    DataError,
    ObjectChanged,
    ObjectDamaged,
    StorageError,
    TransferFailed,
)
from job.storage.cache import Cache
from job.storage.s3.client import S3Settings, make_client, make_retry, make_session
from job.storage.s3.fast_get import FastGet
from job.storage.s3.objects import ObjectStore
from job.storage.s3.responses import S3Object
from job.storage.s3.retry import Limits

_GIB = 1 << 30


def _to_log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Access:
    """Access to S3 and to the cache.

    Attributes:
        settings: settings of the client.
        cache_root: the folder of the cache.
        cache_bytes: the size limit of the cache.
    """

    settings: S3Settings
    cache_root: Path
    cache_bytes: int

    def store(self, say: Callable[[str], None] = _to_log) -> ObjectStore:
        """Return an object store with a new client, for this process only.

        Args:
            say: callback for messages about requests that fail. By default, messages are written
                to the log of the stage.
        """
        session = make_session()
        client = make_client(self.settings, session=session)
        retry = make_retry(self.settings, say)
        # boto3 limits the rate of requests in this mode, so boto3 must send each request.
        adaptive = Limits.of_environment().adaptive
        get = None if adaptive else FastGet(client, session, self.settings.ca_bundle)
        return ObjectStore(client, retry, get)

    def cache(self) -> Cache:
        """Return the cache, for this process only."""
        return Cache(self.cache_root, self.cache_bytes)

    @property
    def server(self) -> str:
        """The URL of the server; empty for AWS."""
        variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        return self.settings.endpoint_url or next(filter(None, map(os.environ.get, variables)), "")

    def name(self, entry: S3Object) -> str:
        """Return a name for the content of an object. Different content has another name."""
        return f"{self.server} {entry.uri} {entry.etag} {entry.bytes}"


@contextmanager
def input_errors() -> Iterator[None]:
    """Translate errors of S3 about an input into the errors of an input file.

    Raises:
        DataError: the object is missing, damaged or has changed, or access is denied.
        TransferFailed: the network or the server failed; the same command may succeed later.
    """
    try:
        yield
    except TransferFailed:
        raise
    except ObjectDamaged as error:
        raise DataError(error.message, error.hint) from error
    except ObjectChanged as error:
        raise DataError(
            error.message,
            "Do not change inputs while a run reads them. Run the same command again: it repeats "
            "the stages that depend on this object.",
        ) from error
    except StorageError as error:
        raise DataError(error.message, error.hint) from error
