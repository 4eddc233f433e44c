"""Archives in S3: unpacked while they arrive, or, if tar files, read where they are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from job.data.archive_reading import (
    Archive,
    Limits,
    LocalArchive,
    Progress,
    archive_errors,
    checked_name,
    entries,
)
from job.data.archives import unpack_object
from job.data.s3.images import Remote
from job.data.s3.index import Member
from job.errors import DataError
from job.storage.digests import hash_stream
from job.storage.s3.objects import ObjectStore, S3Object
from job.storage.s3.range_reader import RangeReader
from job.uri import S3Uri

_UNKNOWN_TIME = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class RemoteArchive:
    """An archive in S3."""

    found: S3Object
    store: ObjectStore

    def __str__(self) -> str:
        return str(self.found.uri)

    @property
    def name(self) -> str:
        """Its file name."""
        return self.found.uri.name

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.found.bytes

    def open(self) -> BinaryIO:
        """Open it; nothing of it is kept on this machine."""
        return cast(BinaryIO, RangeReader(self.store, self.found))


def description(found: S3Object) -> bytes:
    """What tells an archive's content from any other, to plan a run with."""
    return json.dumps(_identity(found)).encode()


def unpack_remote(
    remote: Remote, described: Path, cache: Path, *, progress: Progress | None
) -> Path:
    """Unpack an archive below ``cache`` while it arrives; see ``archives.unpack``.

    Args:
        remote: the archive.
        described: a file with its :func:`description`.
        cache: a folder for unpacked archives.
        progress: called with the archive's bytes done and in all.

    Raises:
        DataError: it is damaged or hostile, or is no longer what it was.
    """
    try:
        told: Mapping[str, Any] = json.loads(described.read_bytes())
        found = S3Object(remote.uri, told["bytes"], told["etag"], _UNKNOWN_TIME)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{described}: damaged: {error}", "Remove it.") from error
    archive = RemoteArchive(found, remote.access.store())
    return unpack_object(archive, _identity(found), cache, progress=progress)


def members_of(archive: Archive, limits: Limits) -> list[Member]:
    """List the files of an uncompressed tar file, with their digests; all of it is read once.

    Raises:
        DataError: it is damaged or hostile.
    """
    members = []
    with archive_errors(archive):
        for entry in entries(archive, limits, None):
            name = checked_name(entry.name, archive).as_posix()
            sha256, size = hash_stream(entry.content)
            if size != entry.size:
                raise DataError(f"{archive}: {name!r} should have {entry.size:,} bytes")
            members.append(Member(name, size, sha256, entry.start))
    return members


def members_of_file(path: Path, uri: S3Uri, limits: Limits) -> list[Member]:
    """List the files of a tar file that has been fetched; see :func:`members_of`."""
    try:
        return members_of(LocalArchive(path), limits)
    except DataError as error:
        raise DataError(error.message.replace(str(path), str(uri)), error.hint) from error


def _identity(found: S3Object) -> dict[str, Any]:
    return {"bytes": found.bytes, "etag": found.etag}
