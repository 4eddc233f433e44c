"""Archives in S3: unpacked during the download, or, for tar files, read in place."""

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
    archive_kind,
    checked_name,
    entries,
)
from job.data.archives import unpack_object
from job.data.s3.images import Remote
from job.data.s3.index import Member
from job.errors import DataError
from job.storage.digests import hash_stream
from job.storage.file_kinds import GZIP, TAR, ZIP
from job.storage.s3.objects import ObjectStore
from job.storage.s3.range_reader import RangeReader
from job.storage.s3.responses import S3Object
from job.uri import on_server

_SUFFIX_OF = {GZIP: ".tar.gz", ZIP: ".zip"}
_UNKNOWN_TIME = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class RemoteArchive:
    """An archive in S3."""

    entry: S3Object
    store: ObjectStore

    def __str__(self) -> str:
        return on_server(self.entry.uri, self.store.server)

    @property
    def name(self) -> str:
        """The file name."""
        return self.entry.uri.name

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.entry.bytes

    def open(self) -> BinaryIO:
        """Open the archive; its content is not stored on this machine."""
        return cast(BinaryIO, RangeReader(self.store, self.entry))


def description(entry: S3Object) -> bytes:
    """Return JSON that identifies the content of an archive, for planning a run."""
    return json.dumps(_identity(entry)).encode()


def unpack_remote(
    remote: Remote, described: Path, cache: Path, *, progress: Progress | None
) -> Path:
    """Unpack an archive below ``cache`` during its download; see ``archives.unpack``.

    Args:
        remote: the archive.
        described: a file with its :func:`description`.
        cache: a folder for unpacked archives.
        progress: called with the number of bytes read from the archive and its size.

    Returns:
        The folder with the files of the archive.

    Raises:
        DataError: the archive is damaged, exceeds a limit, or has changed since it was described.
    """
    try:
        identity: Mapping[str, Any] = json.loads(described.read_bytes())
        entry = S3Object(remote.uri, identity["bytes"], identity["etag"], _UNKNOWN_TIME)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{described} is damaged: {error}", "Remove this file.") from error
    archive = RemoteArchive(entry, remote.access.store())
    return unpack_object(archive, _identity(entry), cache, progress=progress)


def members_of(archive: Archive, limits: Limits) -> list[Member]:
    """List the files of an uncompressed tar file with their checksums; reads the whole file.

    Raises:
        DataError: the tar file is damaged or exceeds a limit.
    """
    members = []
    with archive_errors(archive):
        kind = archive_kind(archive)
        if kind != TAR:
            raise DataError(
                f"{archive}: expected an uncompressed tar file, found {kind}",
                f"Rename the object to end with {_SUFFIX_OF[kind]}, and correct data.root.",
            )
        for entry in entries(archive, limits, None):
            name = checked_name(entry.name, archive).as_posix()
            sha256, size = hash_stream(entry.content)
            if size != entry.size:
                raise DataError(
                    f"{archive}: {name!r}: expected {entry.size:,} bytes, found {size:,}; "
                    "the archive is truncated or damaged",
                    "Upload the archive again.",
                )
            members.append(Member(name, size, sha256, entry.start))
    return members


def members_of_file(path: Path, place: str, limits: Limits) -> list[Member]:
    """List the files of a downloaded tar file; see :func:`members_of`.

    Args:
        path: the file.
        place: the object and its server, for messages.
        limits: see :func:`members_of`.
    """
    try:
        return members_of(LocalArchive(path), limits)
    except DataError as error:
        raise DataError(error.message.replace(str(path), place), error.hint) from error


def _identity(entry: S3Object) -> dict[str, Any]:
    return {"bytes": entry.bytes, "etag": entry.etag}
