"""Reading an archive of images that may be hostile, file by file.

Only regular files come out, and only so many: no links, no devices, limits on the number of files,
their size, and the compression ratio.
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
# Paths have at most 4,096 bytes, and before 3.11.10 tarfile takes time by the square of this.
_LONGEST_HEADER = 16 << 10
_MOST_GLOBAL_KEYS = 1000

Progress = Callable[[int, int], None]

UNPACK_HINT = "If you trust the archive, unpack it by hand and name the folder as data.root."


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        entries: number of files and folders.
        total_bytes: bytes of all files together.
        ratio: unpacked bytes for each byte of the archive. Photographs are near 1, the emptiest
            bitmaps near 100; a deflate bomb reaches 1032.
    """

    entries: int = 20_000_000
    total_bytes: int = 2 << 40
    ratio: int = 200


class Archive(Protocol):
    """An archive wherever it is; as text it is what messages call it."""

    @property
    def name(self) -> str:
        """Its file name, whose suffix tells the format."""

    @property
    def bytes(self) -> int:
        """Its size."""

    def open(self) -> BinaryIO:
        """Open it; a .zip is read here and there, others from front to back."""


@dataclass(frozen=True)
class LocalArchive:
    """An archive on a local disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.name

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        """Open it."""
        return self.path.open("rb")


@dataclass(frozen=True)
class ArchiveEntry:
    """One file of an archive.

    Attributes:
        name: its path as the archive has it.
        size: in bytes.
        start: its first byte in an uncompressed tar file.
        content: to be read before the next entry is asked for.
    """

    name: str
    size: int
    start: int
    content: IO[bytes]


def is_archive(name: str) -> bool:
    """Whether the name is that of an archive that ``unpack`` reads."""
    return name.lower().endswith(_TAR_SUFFIXES + _ZIP_SUFFIXES)


def is_plain_tar(name: str) -> bool:
    """Whether the name is that of a tar file whose members can be read where they are."""
    return name.lower().endswith(".tar")


def entries(archive: Archive, limits: Limits, progress: Progress | None) -> Iterator[ArchiveEntry]:
    """The files of an archive, in its order; each is to be read before the next is asked for.

    Args:
        archive: a .tar, .tar.gz, .tgz or .zip file.
        limits: what to refuse.
        progress: called with the archive's bytes done and in all.

    Raises:
        DataError: damaged, or refused.
    """
    with archive_errors(archive):
        budget = _Budget(archive, limits)
        if archive.name.lower().endswith(_ZIP_SUFFIXES):
            yield from _zip_entries(archive, budget, progress)
        else:
            yield from _tar_entries(archive, budget, progress)


def checked_name(name: str, archive: Archive) -> PurePosixPath:
    """Return an entry's path, if it stays below the folder that it is unpacked to.

    Raises:
        DataError: it does not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or set(name) & {"\\", "\0"}:
        raise DataError(
            f"{archive}: {name!r} leads out of the archive or is no portable path; nothing was "
            "unpacked"
        )
    return path


@contextmanager
def archive_errors(archive: Archive) -> Iterator[None]:
    """Translate what the archive readers raise on damaged files."""
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
            f"{archive}: truncated, damaged or not an archive: {error}",
            "Fetch it again and compare its digest.",
        ) from error


class _Budget:
    """Counts what is unpacked and refuses to go above the limits."""

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
                f"{self._archive}: holds more than {self._limits.entries:,} files", UNPACK_HINT
            )

    def take_bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._limits.total_bytes:
            raise DataError(
                f"{self._archive}: unpacks to more than {self._limits.total_bytes:,} bytes",
                UNPACK_HINT,
            )
        if self._bytes > self._most_by_ratio:
            raise DataError(
                f"{self._archive}: unpacks to more than {self._limits.ratio} times its size, which "
                "images do not",
                UNPACK_HINT,
            )


class _Metered(io.RawIOBase):
    """A stream that takes what is read from it off a budget."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._budget.take_bytes(len(content))
        return content


class _StrictTarInfo(tarfile.TarInfo):
    """Tells of a damaged header; tarfile takes one for the end of the archive, in silence."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_StrictTarInfo":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # unknown to typeshed
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"bad header at byte {tar.offset:,}: {error}") from error

    # tarfile reads the following whole, however long, and keeps it in memory.

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED_HEADERS and not 0 <= self.size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes at byte {tar.offset:,}")
        if len(tar.pax_headers) > _MOST_GLOBAL_KEYS:
            raise tarfile.ReadError(f"more than {_MOST_GLOBAL_KEYS} keys for the whole archive")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_holes()
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return] # unknown to typeshed

    def _refuse_holes(self, *_: object) -> None:
        raise tarfile.ReadError(f"{self.name!r} is a special file, with holes")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_holes


def _tar_entries(
    archive: Archive, budget: _Budget, progress: Progress | None
) -> Iterator[ArchiveEntry]:
    total = archive.bytes
    compressed = not is_plain_tar(archive.name)
    with archive.open() as raw:
        metered = _Metered(gzip.GzipFile(fileobj=raw) if compressed else raw, budget)
        with tarfile.open(fileobj=metered, mode="r|", tarinfo=_StrictTarInfo) as tar:
            while (member := tar.next()) is not None:
                # The archive would keep a record of every member, a gigabyte for ImageNet.
                tar.members.clear()  # type: ignore[attr-defined] # unknown to typeshed
                budget.take_entry()
                if member.isdir():
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    kind = "link" if member.issym() or member.islnk() else "special file"
                    raise DataError(
                        f"{archive}: {member.name!r} is a {kind}; only files and folders are taken",
                        UNPACK_HINT,
                    )
                yield ArchiveEntry(member.name, member.size, member.offset_data, content)
                if progress:
                    progress(raw.tell(), total)
        # gzip checks its checksum at its very end only.
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
                    f"{archive}: {member.filename!r} is a link or special file; only files and "
                    "folders are taken",
                    UNPACK_HINT,
                )
            if member.flag_bits & 1:
                raise DataError(f"{archive}: {member.filename!r} is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{archive}: {member.filename!r} is compressed by method "
                    f"{member.compress_type}; only deflate and none are taken",
                    "Make it again with a plain `zip`.",
                )
            with opened.open(member) as content:
                yield ArchiveEntry(member.filename, member.file_size, member.header_offset, content)
            if progress:
                progress(min(member.header_offset + member.compress_size, total), total)
