"""Access to S3 from the storage section of a manifest."""

import os
from pathlib import Path

from job.manifest.spec import StorageSpec
from job.storage.s3.access import _GIB, Access
from job.storage.s3.client import S3Settings


def access_of(storage: StorageSpec, base: Path) -> Access:
    """Return access to S3 and to the cache.

    Args:
        storage: the storage section of the manifest.
        base: the folder that its paths are relative to.
    """
    bundle = None if storage.ca_bundle is None else str(base / storage.ca_bundle)
    settings = S3Settings(
        storage.endpoint_url,
        storage.region,
        storage.addressing,
        bundle,
        storage.retry_minutes * 60,
    )
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    scratch = Path(storage.scratch or os.environ.get("JOB_SCRATCH") or f"{caches}/job")
    return Access(
        settings, scratch.expanduser().absolute() / "inputs", int(storage.cache_gib * _GIB)
    )
