"""Reads the files of an untrusted archive.

Only regular files are accepted: no links and no devices. The number of files, their size and the
compression ratio are limited.
"""

import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Protocol

from job.errors import DataError
from job.storage.file_kinds import GZIP, HEAD_BYTES, TAR, ZIP, kind_of

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_ZIP_SUFFIXES = (".zip",)
_CHUNK_BYTES = 1 << 20
_EXTENDED_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# Paths have at most 4,096 bytes. Before Python 3.11.10 tarfile needs time quadratic in the length.
_LONGEST_HEADER = 16 << 10
_MOST_GLOBAL_KEYS = 1000

Progress = Callable[[int, int], None]

UNPACK_HINT = "If you trust the archive, unpack it yourself and set data.root to the folder."


@dataclass(frozen=True)
class Limits:
    """Limits for unpacking an archive.

    Attributes:
        entries: maximum number of files and folders.
        total_bytes: maximum size of all files together.
        ratio: maximum number of unpacked bytes per byte of the archive. The ratio is about 1 for
            photographs, about 100 for almost empty bitmaps, and up to 1032 for a deflate bomb.
    """

    entries: int = 20_000_000
    total_bytes: int = 2 << 40
    ratio: int = 200


class Archive(Protocol):
    """An archive on a disk or in S3; messages use its text form."""

    @property
    def name(self) -> str:
        """The file name, whose suffix gives the format."""

    @property
    def bytes(self) -> int:
        """The size in bytes."""

    def open(self) -> BinaryIO:
        """Open the archive; a .zip is read with seeks, other formats from start to end."""


@dataclass(frozen=True)
class LocalArchive:
    """An archive on a local disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The file name."""
        return self.path.name

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        """Open the archive."""
        return self.path.open("rb")


@dataclass(frozen=True)
class ArchiveEntry:
    """One file of an archive.

    Attributes:
        name: its path in the archive.
        size: its size in bytes.
        start: the offset of its first byte in an uncompressed tar file.
        content: its content; read the content before you request the next entry.
    """

    name: str
    size: int
    start: int
    content: IO[bytes]


def is_archive(name: str) -> bool:
    """Return whether a file name has a suffix of an archive that ``unpack`` reads."""
    return name.lower().endswith(_TAR_SUFFIXES + _ZIP_SUFFIXES)


def is_plain_tar(name: str) -> bool:
    """Return whether a file name has the suffix of an uncompressed tar file."""
    return name.lower().endswith(".tar")


def entries(archive: Archive, limits: Limits, progress: Progress | None) -> Iterator[ArchiveEntry]:
    """Yield the files of an archive in order. Read each file before you request the next file.

    The content determines whether the archive is compressed, because a download often loses the
    suffix .gz.

    Args:
        archive: a .tar, .tar.gz, .tgz or .zip file.
        limits: limits for unpacking.
        progress: called with the number of bytes read from the archive and its size.

    Raises:
        DataError: the archive is damaged, exceeds a limit, or has links or special files.
    """
    with archive_errors(archive):
        budget = _Budget(archive, limits)
        kind = archive_kind(archive)
        if kind == ZIP:
            yield from _zip_entries(archive, budget, progress)
        else:
            yield from _tar_entries(archive, budget, progress, compressed=kind == GZIP)


def archive_kind(archive: Archive) -> str:
    """Return ``ZIP``, ``GZIP`` or ``TAR``, by the content.

    Raises:
        DataError: the content is of another kind.
        OSError: the archive cannot be read.
    """
    with archive.open() as file:
        head = file.read(HEAD_BYTES)
    kind = kind_of(head)
    if kind in (ZIP, GZIP, TAR):
        return kind
    if kind:
        raise DataError(
            f"{archive}: expected a .tar, .tar.gz, .tgz or .zip archive, found {kind}",
            "Create the archive again in one of these formats, or unpack it yourself and set "
            "data.root to the folder.",
        )
    # Old tar files have no mark. A zip file may begin with other data.
    return ZIP if archive.name.lower().endswith(_ZIP_SUFFIXES) else TAR


def checked_name(name: str, archive: Archive) -> PurePosixPath:
    """Return the path of an entry, which must stay below the target folder.

    Args:
        name: the path in the archive.
        archive: the archive, for messages.

    Raises:
        DataError: the path is absolute, empty, or outside the target folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or set(name) & {"\\", "\0"}:
        raise DataError(
            f"{archive}: {name!r} is a path outside the target folder, or is not a portable path; "
            "nothing was unpacked",
            "Create the archive again, with relative paths.",
        )
    return path


@contextmanager
def archive_errors(archive: Archive) -> Iterator[None]:
    """Translate the errors of the archive readers on damaged files into a DataError."""
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        LookupError,
        RuntimeError,
        MemoryError,
        struct.error,
        zlib.error,
        lzma.LZMAError,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(
            f"{archive}: cannot read the archive (truncated, damaged or not an archive): {error}",
            "Download the archive again and compare its checksum.",
        ) from error


class _Budget:
    """Counts unpacked files and bytes, and fails above the limits."""

    def __init__(self, archive: Archive, limits: Limits) -> None:
        self._archive = archive
        self._limits = limits
        self._entries = 0
        self._bytes = 0
        self._most_by_ratio = archive.bytes * limits.ratio

    def take_entry(self) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise DataError(
                f"{self._archive}: the archive has more than {self._limits.entries:,} files",
                UNPACK_HINT,
            )

    def take_bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._limits.total_bytes:
            raise DataError(
                f"{self._archive}: the archive unpacks to more than {self._limits.total_bytes:,} "
                "bytes",
                UNPACK_HINT,
            )
        if self._bytes > self._most_by_ratio:
            raise DataError(
                f"{self._archive}: the archive unpacks to more than {self._limits.ratio} times its "
                "size, which is not plausible for images",
                UNPACK_HINT,
            )


class _Metered(io.RawIOBase):
    """A stream that counts the bytes that are read from it."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._budget.take_bytes(len(content))
        return content


class _StrictTarInfo(tarfile.TarInfo):
    """Raises an error for a damaged header, which tarfile treats as the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_StrictTarInfo":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # unknown to typeshed
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"bad header at byte {tar.offset:,}: {error}") from error

    # tarfile reads extended headers into memory, whatever their length.

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED_HEADERS and not 0 <= self.size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"header of {self.size:,} bytes at byte {tar.offset:,}")
        if len(tar.pax_headers) > _MOST_GLOBAL_KEYS:
            raise tarfile.ReadError(f"more than {_MOST_GLOBAL_KEYS} global header keys")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_holes()
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return] # unknown to typeshed

    def _refuse_holes(self, *_: object) -> None:
        raise tarfile.ReadError(f"{self.name!r} is a sparse file, which is not supported")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_holes


def _tar_entries(
    archive: Archive, budget: _Budget, progress: Progress | None, *, compressed: bool
) -> Iterator[ArchiveEntry]:
    total = archive.bytes
    with archive.open() as raw:
        metered = _Metered(gzip.GzipFile(fileobj=raw) if compressed else raw, budget)
        with tarfile.open(fileobj=metered, mode="r|", tarinfo=_StrictTarInfo) as tar:
            while (member := tar.next()) is not None:
                # tarfile keeps a record of every member, which is a gigabyte for ImageNet.
                tar.members.clear()  # type: ignore[attr-defined] # unknown to typeshed
                budget.take_entry()
                if member.isdir():
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    kind = "link" if member.issym() or member.islnk() else "special file"
                    raise DataError(
                        f"{archive}: {member.name!r} is a {kind}; expected only files and folders",
                        UNPACK_HINT,
                    )
                yield ArchiveEntry(member.name, member.size, member.offset_data, content)
                if progress:
                    progress(raw.tell(), total)
        # gzip verifies its checksum only at the end of the stream.
        while metered.read(_CHUNK_BYTES):
            pass


def _zip_entries(
    archive: Archive, budget: _Budget, progress: Progress | None
) -> Iterator[ArchiveEntry]:
    total = archive.bytes
    with archive.open() as raw, zipfile.ZipFile(raw) as opened:
        for member in opened.infolist():
            budget.take_entry()
            budget.take_bytes(member.file_size)
        for member in opened.infolist():
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise DataError(
                    f"{archive}: {member.filename!r} is a link or special file; expected only "
                    "files and folders",
                    UNPACK_HINT,
                )
            if member.flag_bits & 1:
                raise DataError(
                    f"{archive}: {member.filename!r} is encrypted",
                    "Use an archive without encryption.",
                )
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{archive}: {member.filename!r} has compression method "
                    f"{member.compress_type}; expected stored (0) or deflated (8)",
                    "Create the archive again with `zip` and its default options.",
                )
            with opened.open(member) as content:
                yield ArchiveEntry(member.filename, member.file_size, member.header_offset, content)
            if progress:
                progress(min(member.header_offset + member.compress_size, total), total)
