"""Reads the names and the lists of a data set in S3, for ``job init``."""

import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from job.data.archive_reading import is_archive, is_plain_tar
from job.data.s3.archive import RemoteArchive
from job.errors import DataError, UsageError
from job.pipeline.output_location import store_of_environment
from job.storage.s3.access import input_errors
from job.storage.s3.objects import ObjectStore
from job.uri import S3Uri


def names_in_s3(uri: S3Uri) -> list[str]:
    """Return the names of the files below a prefix, or in a tar file that is not compressed.

    Raises:
        UsageError: the object is another archive.
        DataError: the bucket or the object cannot be read.
    """
    store = store_of_environment()
    with input_errors():
        if is_archive(uri.name):
            return _members(store, uri)
        return [entry.uri.key.removeprefix(uri.below) for entry in store.list(uri)]


def _members(store: ObjectStore, uri: S3Uri) -> list[str]:
    """Return the names of the members; only the headers of the tar file are read."""
    if not is_plain_tar(uri.name):
        raise UsageError(
            f"--data {uri}: in S3, `job init` reads only uncompressed tar files",
            "Run `job init` on a local copy, then set data.root in the manifest to the S3 URI.",
        )
    remote = RemoteArchive(store.head(uri), store)
    try:
        with remote.open() as file, tarfile.open(fileobj=file) as tar:
            return [posixpath.normpath(each.name) for each in tar if each.isfile()]
    except tarfile.TarError as error:
        raise DataError(
            f"--data {remote}: cannot be read as a tar file: {error}", "Check the object."
        ) from error


@contextmanager
def lists_in_s3(uri: S3Uri, names: Sequence[str]) -> Iterator[Path]:
    """Download the named lists of a prefix to a temporary folder.

    Raises:
        DataError: a list cannot be read.
    """
    store = store_of_environment()
    with TemporaryDirectory(prefix="job-") as folder, input_errors():
        for name in names:
            (Path(folder) / name).write_bytes(store.read(uri / name))
        yield Path(folder)
