"""Parses the location of an output, and opens the output at this location."""

import hashlib
import os
import re
from pathlib import Path

from job.errors import OutputError, UsageError
from job.events import Say
from job.manifest import Manifest
from job.manifest.spec import StorageSpec, expanded
from job.manifest.storage_access import access_of
from job.storage.files import output_errors
from job.storage.local import LocalOutput
from job.storage.s3.client import S3Settings, make_client, make_retry
from job.storage.s3.objects import ObjectStore
from job.storage.s3.output import S3Output
from job.uri import S3Uri, is_uri, parse, without_secrets

Location = Path | S3Uri

# The stage name in messages about the output.
STORAGE = "storage"
# Linux file systems do not allow longer names.
_MAX_NAME_BYTES = 255
_OWNER_ONLY = 0o700


def place_of(text: str) -> Location:
    """Return the folder or the URI that an option or a manifest gives.

    Raises:
        UsageError: the text is neither a valid path nor a valid URI.
    """
    if is_uri(text):
        return parse(text)
    too_long = any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in Path(text).parts)
    if not text.strip() or "\0" in text or too_long:
        shortened = text if len(text) < 80 else f"{text[:80]}..."
        raise UsageError(
            f"{shortened!r} is not a valid path of an output",
            f"Use a path whose names have 1 to {_MAX_NAME_BYTES} bytes, such as runs/digits.",
        )
    return expanded(text)


def on_this_machine(text: str, what: str) -> Path:
    """Return the path of a command's output that cannot be in S3.

    Args:
        text: the path.
        what: its name in messages.

    Raises:
        UsageError: the text is a URI.
    """
    if is_uri(text):
        raise UsageError(
            f"{what}: expected a path on this machine, found {without_secrets(text)!a}",
            "Write to a path on this machine, then copy the result to S3.",
        )
    return Path(text)


def open_output(place: Location, manifest: Manifest, say: Say) -> LocalOutput:
    """Return the output at a location; the output is not read or written yet.

    Args:
        place: the location.
        manifest: contains the settings for S3.
        say: callback for messages to the user.

    Raises:
        StorageError: the settings for S3 are invalid.
        OutputError: the scratch folder cannot be created, or belongs to another user.
    """
    if isinstance(place, Path):
        return LocalOutput(place)
    store = store_of(manifest.storage, manifest.base, say)
    scratch = _scratch(place, store.client.meta.endpoint_url, manifest.storage.scratch)
    return _in_s3(place, store, scratch, manifest, say)


def open_read_only(place: Location, manifest: Manifest, scratch: Path) -> LocalOutput:
    """Return the output at a location for planning only; the output is not written.

    Args:
        place: the location.
        manifest: contains the settings for S3.
        scratch: a folder for the files that are downloaded from S3.
    """
    if isinstance(place, Path):
        return LocalOutput(place)
    store = store_of(manifest.storage, manifest.base)
    output = _in_s3(place, store, scratch / _folder_name(place, ""), manifest, _silent)
    output.read_only()
    return output


def store_of(storage: StorageSpec, base: Path, say: Say | None = None) -> ObjectStore:
    """Return an object store with the settings of a manifest.

    Args:
        storage: the storage section of the manifest.
        base: the folder that its paths are relative to.
        say: callback for messages about requests that fail repeatedly.
    """
    settings = access_of(storage, base).settings
    return ObjectStore(make_client(settings), make_retry(settings, say))


def store_of_environment(say: Say | None = None) -> ObjectStore:
    """Return an object store with the settings of the AWS_* variables."""
    settings = S3Settings()
    return ObjectStore(make_client(settings), make_retry(settings, say))


def _silent(text: str) -> None:
    """Drop a message."""


def _in_s3(
    place: S3Uri, store: ObjectStore, scratch: Path, manifest: Manifest, say: Say
) -> S3Output:
    seconds = manifest.storage.lease_seconds
    return S3Output(place, store, scratch, lease_seconds=seconds, say=say)


def _scratch(place: S3Uri, endpoint: str, given: str | None) -> Path:
    """Return the scratch folder of an output in S3; each output has its own."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    parent = Path(given or os.environ.get("JOB_SCRATCH") or f"{caches}/job").expanduser()
    folder = parent / _folder_name(place, endpoint)
    with output_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        # Other users may be able to write to the parent folder, as in /tmp.
        folder.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise OutputError(
                f"{folder} belongs to another user", "Set storage.scratch to another folder."
            )
    return folder


def _folder_name(place: S3Uri, endpoint: str) -> str:
    digest = hashlib.sha256(f"{endpoint} {place}".encode()).hexdigest()[:12]
    readable = re.sub("[^A-Za-z0-9.-]+", "-", f"{place.bucket}-{place.key}")[-60:].strip("-.")
    return f"{readable}-{digest}"
