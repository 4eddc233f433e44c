"""Lists the files of a data set and reads its annotation files, for ``job init``."""

import os
import posixpath
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from job.data.archive_reading import (
    UNPACK_HINT,
    Limits,
    LocalArchive,
    archive_errors,
    archive_kind,
    entries,
    is_archive,
)
from job.data.system_folders import system_part
from job.errors import DataError
from job.storage.file_kinds import ZIP


def names_of(path: Path) -> list[str]:
    """Return the files of a folder or an archive, without system folders.

    Raises:
        DataError: the path is neither a folder nor an archive, the archive is damaged, or it
            contains a link.
    """
    if path.is_dir():
        return _names_in_folder(path)
    if not is_archive(path.name):
        raise DataError(
            f"--data {path}: expected a folder or a .tar, .tar.gz, .tgz or .zip archive",
            "Give a folder or an archive of images.",
        )
    return [name for name in _names_in_archive(LocalArchive(path)) if not system_part(name)]


def _names_in_folder(path: Path) -> list[str]:
    names = []
    linked: set[Path] = set()
    for parent, folders, files in os.walk(path, followlinks=True):
        relative = os.path.relpath(parent, path)
        folders[:] = [name for name in folders if not system_part(name)]
        for link in [each for each in map(Path(parent).joinpath, folders) if each.is_symlink()]:
            # A link to one of its parents would be followed without end.
            target = link.resolve()
            if target in linked or Path(parent).resolve().is_relative_to(target):
                folders.remove(link.name)
            linked.add(target)
        names += [posixpath.normpath(f"{relative}/{name}") for name in files if name[:1] != "."]
    return names


def _names_in_archive(archive: LocalArchive) -> list[str]:
    with archive_errors(archive):
        if archive_kind(archive) == ZIP:
            return [posixpath.normpath(each.name) for each in entries(archive, Limits(), None)]
        # Only the headers are read, because a tar file of images can have 150 GB.
        with tarfile.open(archive.path) as tar:
            members = [each for each in tar if not each.isdir()]
    link = next((each.name for each in members if not each.isreg()), None)
    if link is not None:
        raise DataError(
            f"{archive}: {link!r} is a link or special file; expected only files and folders",
            UNPACK_HINT,
        )
    return [posixpath.normpath(each.name) for each in members]


def contents(path: Path, names: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Yield name and content of files of a folder or an archive.

    Args:
        path: the folder or archive.
        names: the files to read; the content is valid until the next file is requested.
    """
    if path.is_dir():
        for name in sorted(names):
            with (path / name).open("rb") as file:
                yield name, file
        return
    for entry in entries(LocalArchive(path), Limits(), None):
        name = posixpath.normpath(entry.name)
        if name in names:
            yield name, cast(BinaryIO, entry.content)
