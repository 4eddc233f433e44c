"""What a manifest reads from S3, brought to this machine before a run is planned.

Files that are opened by path (weights, models, lists, packed files) are fetched into the cache. Of
a data set of images only a description is made: what there is, and what each object must be; its
images are read when they are needed. All of it stays in the cache until the run ends.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.errors import DataError, ObjectMissing
from job.manifest import Manifest, entries
from job.manifest.spec import DataSpec
from job.manifest.storage_access import access_of
from job.storage.cache import Cache
from job.storage.s3.access import input_errors
from job.storage.s3.objects import ObjectStore, S3Object
from job.uri import S3Uri

_MODEL_SUFFIXES = (".pdmodel", ".pdiparams")
_SIDECAR = ".json"


@contextmanager
def localized(
    manifest: Manifest, say: Callable[[str], None], index: int | None = None
) -> Iterator[Manifest]:
    """Fetch what a manifest reads from S3, and yield it with the local paths of all that.

    Args:
        manifest: of one model or of a matrix.
        say: is told of what takes its time.
        index: the one model of a matrix that is wanted; None for all.

    Raises:
        DataError: something is missing, refused or not what it should be; names bucket and key.
        TransferFailed: the network or the server fails, attempt after attempt.
        OutputError: the cache cannot be written, or is too small for one file.
    """
    singles = entries(manifest) or (manifest,)
    if index is not None:
        singles = singles[max(0, index) : index + 1]  # one that is not there is told of later
    if not any(_reads_s3(single) for single in singles):
        yield manifest
        return
    fetcher = _Fetcher(manifest, say)
    try:
        with input_errors():
            for single in singles:
                fetcher.model(single)
                fetcher.data(single)
        yield replace(manifest, localized=fetcher.paths)
    finally:
        fetcher.cache.release()


def _reads_s3(manifest: Manifest) -> bool:
    model, data = manifest.model, manifest.data
    texts = [model.weights, model.inference_model, *_files_of(data), data.root]
    if data.format not in ("digits", "synthetic") and data.root is None:
        texts.append(".")
    return any(text is not None and manifest.uri(text) is not None for text in texts)


def _files_of(data: DataSpec) -> Sequence[str]:
    """Lists or packed files, as the manifest names them."""
    lists = (data.train_list, data.selection_list, data.val_list)
    files = (data.train_file, data.selection_file, data.val_file)
    return [name for name in (*lists, *files) if name is not None]


class _Fetcher:
    """Fetches, each thing once."""

    def __init__(self, manifest: Manifest, say: Callable[[str], None]) -> None:
        self.say = say
        self.access = access_of(manifest.storage, manifest.base)
        self.cache: Cache = self.access.cache()
        self.store: ObjectStore = self.access.store()
        self.paths: dict[S3Uri, Path] = {}

    def model(self, manifest: Manifest) -> None:
        """Fetch weights and a ready inference model."""
        model = manifest.model
        if model.weights and (uri := manifest.uri(model.weights)):
            self._files([self.store.head(uri)])
        if model.inference_model and (uri := manifest.uri(model.inference_model)):
            self._inference_model(uri)

    def data(self, manifest: Manifest) -> None:
        """Fetch lists and packed files, and describe images."""
        data = manifest.data
        if data.format in ("digits", "synthetic"):
            return
        # Pillow and numpy are not for those who only ask for help.
        from job.data.s3.describe import describe
        from job.manifest.spec import data_file

        root = manifest.uri(data.root or ".")
        for name in _files_of(data):
            uri = manifest.uri(data_file(data.root, name))
            if uri is not None:
                self._file(uri, with_sidecar=data.format == "packed")
        if root is not None and data.format != "packed" and root not in self.paths:
            self.say(f"looking through {root}")
            folder = describe(root, manifest, self.access, self.store, self.cache, self.paths)
            self.paths[root] = folder

    def _file(self, uri: S3Uri, *, with_sidecar: bool) -> None:
        if uri in self.paths:
            return
        found = [self.store.head(uri)]
        if with_sidecar:
            with suppress(ObjectMissing):
                found.append(self.store.head(S3Uri(uri.bucket, f"{uri.key}{_SIDECAR}")))
        self._files(found)

    def _inference_model(self, uri: S3Uri) -> None:
        """Fetch both files of a model given as their common name, as one of them, or as a folder.

        Raises:
            DataError: there is no such model.
        """
        if uri in self.paths:
            return
        stem = uri
        if uri.key.endswith(_MODEL_SUFFIXES):
            stem = S3Uri(uri.bucket, uri.key.rpartition(".")[0])
        else:
            inside = [
                each.uri.key
                for each in self.store.directly_in(uri)
                if each.uri.key.endswith(_MODEL_SUFFIXES[0])
            ]
            if inside:
                stem = S3Uri(uri.bucket, min(inside).removesuffix(_MODEL_SUFFIXES[0]))
        try:
            found = [
                self.store.head(S3Uri(uri.bucket, f"{stem.key}{suffix}"))
                for suffix in _MODEL_SUFFIXES
            ]
        except ObjectMissing as error:
            raise DataError(
                f"{uri}: no inference model: {error.message}",
                "Name MODEL for MODEL.pdmodel and MODEL.pdiparams, or the prefix they are below.",
            ) from error
        folder = self._files(found)
        self.paths.setdefault(uri, folder / stem.name)

    def _files(self, found: Sequence[S3Object]) -> Path:
        """Fetch files that belong together into one folder."""

        def fetch(folder: Path) -> None:
            for each in found:
                self.say(f"fetching {each.uri}, {each.bytes:,} bytes")
                self.store.download(
                    each.uri, folder / each.uri.name, bytes=each.bytes, etag=each.etag
                )

        name = "\n".join(self.access.name(each) for each in found)
        folder = self.cache.files(name, sum(each.bytes for each in found), fetch)
        for each in found:
            self.paths[each.uri] = folder / each.uri.name
        return folder


def as_json(manifest: Manifest) -> Mapping[str, Any]:
    """Return where a manifest came from and what was fetched, for :func:`from_json`."""
    prefix = manifest.prefix
    return {
        "prefix": None if prefix is None else [prefix.bucket, prefix.key],
        "localized": [[uri.bucket, uri.key, str(path)] for uri, path in manifest.localized.items()],
    }


def from_json(manifest: Manifest, told: Mapping[str, Any]) -> Manifest:
    """Return a manifest that knows what :func:`as_json` told of another process's."""
    prefix = told.get("prefix")
    return replace(
        manifest,
        prefix=None if prefix is None else S3Uri(*prefix),
        localized={
            S3Uri(bucket, key): Path(path) for bucket, key, path in told.get("localized", ())
        },
    )
