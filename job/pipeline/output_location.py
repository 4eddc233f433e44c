"""Where a run is written: turns the text of an option or a manifest into an output."""

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
from job.storage.s3.client import S3Settings, make_client
from job.storage.s3.objects import ObjectStore
from job.storage.s3.output import S3Output
from job.storage.s3.retry import Retry
from job.uri import S3Uri, is_uri, parse, without_secrets

Location = Path | S3Uri

# The stage name in messages about the output.
STORAGE = "storage"
# Linux file systems do not allow longer names.
_MAX_NAME_BYTES = 255
_OWNER_ONLY = 0o700


def place_of(text: str) -> Location:
    """Return the folder or the S3 prefix that an option or a manifest names.

    Raises:
        UsageError: the text is neither a valid path nor a valid S3 URI.
    """
    if is_uri(text):
        return parse(text)
    too_long = any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in Path(text).parts)
    if not text.strip() or "\0" in text or too_long:
        excerpt = text if len(text) < 80 else f"{text[:80]}..."
        raise UsageError(
            f"--output: {excerpt!r} is not a valid folder name",
            f"Give a path such as runs/digits, in which each name has 1 to {_MAX_NAME_BYTES} "
            "bytes.",
        )
    return expanded(text)


def on_this_machine(text: str, what: str) -> Path:
    """Return the path of a command's output that cannot be in S3.

    Args:
        text: the path.
        what: name of the option or argument, for the error message.

    Raises:
        UsageError: the text is a URI.
    """
    if is_uri(text):
        raise UsageError(
            f"{what}: expected a path on this machine, found {without_secrets(text)!a}",
            "Write to a local path, then copy the result to S3.",
        )
    return Path(text)


def open_output(place: Location, manifest: Manifest, say: Say) -> LocalOutput:
    """Return the output at a location. Nothing is read or written yet.

    Args:
        place: the folder or S3 prefix.
        manifest: provides the settings for S3.
        say: callback for warnings about S3.

    Raises:
        StorageError: no S3 client can be created from the settings.
        OutputError: the scratch folder cannot be created, or belongs to another user.
    """
    if isinstance(place, Path):
        return LocalOutput(place)
    store = store_of(manifest.storage, manifest.base, say)
    scratch = _scratch(place, store.client.meta.endpoint_url, manifest.storage.scratch)
    return _in_s3(place, store, scratch, manifest, say)


def open_read_only(place: Location, manifest: Manifest, scratch: Path) -> LocalOutput:
    """Return the output at a location for reading. Nothing is written to the location.

    Args:
        place: the folder or S3 prefix.
        manifest: provides the settings for S3.
        scratch: the folder in which a folder for downloads is created.
    """
    if isinstance(place, Path):
        return LocalOutput(place)
    store = store_of(manifest.storage, manifest.base)
    output = _in_s3(place, store, scratch / _folder_name(place, ""), manifest, _silent)
    output.read_only()
    return output


def store_of(storage: StorageSpec, base: Path, say: Say | None = None) -> ObjectStore:
    """Return an S3 client with a manifest's settings.

    Args:
        storage: the manifest's settings.
        base: the folder that its relative paths start at.
        say: callback for a warning when requests keep failing.
    """
    return ObjectStore(make_client(access_of(storage, base).settings), Retry(say=say))


def store_of_environment(say: Say | None = None) -> ObjectStore:
    """Return an S3 client with the settings of the AWS_* variables, for use without a manifest."""
    return ObjectStore(make_client(S3Settings()), Retry(say=say))


def _silent(text: str) -> None:
    """Drop a warning, because reading does not change the output."""


def _in_s3(
    place: S3Uri, store: ObjectStore, scratch: Path, manifest: Manifest, say: Say
) -> S3Output:
    seconds = manifest.storage.lease_seconds
    return S3Output(place, store, scratch, lease_seconds=seconds, say=say)


def _scratch(place: S3Uri, endpoint: str, given: str | None) -> Path:
    """Return the local working folder of an output in S3. Each output has its own."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    parent = Path(given or os.environ.get("JOB_SCRATCH") or f"{caches}/job").expanduser()
    folder = parent / _folder_name(place, endpoint)
    with output_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        # Other users may be able to write to the parent, for example in /tmp.
        folder.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise OutputError(
                f"{folder} belongs to another user", "Name another folder with storage.scratch."
            )
    return folder


def _folder_name(place: S3Uri, endpoint: str) -> str:
    digest = hashlib.sha256(f"{endpoint} {place}".encode()).hexdigest()[:12]
    readable = re.sub("[^A-Za-z0-9.-]+", "-", f"{place.bucket}-{place.key}")[-60:].strip("-.")
    return f"{readable}-{digest}"
