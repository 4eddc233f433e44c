"""Downloads the inputs of a manifest that are in S3, before a run is planned.

Files that are opened by path (weights, models, lists, packed files) are downloaded into the cache.
A data set of images is only listed, with size and checksum of each object; its images are read
when they are needed. The downloads stay in the cache until the run ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from job.errors import DataError, ObjectMissing
from job.events import Say
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
def localized(manifest: Manifest, say: Say, index: int | None = None) -> Iterator[Manifest]:
    """Download the inputs of a manifest, and yield the manifest with their local paths.

    Args:
        manifest: manifest of one model or of a matrix.
        say: callback for status messages during downloads.
        index: position of the one model of a matrix to run; None for all models.

    Raises:
        DataError: an input is missing, not readable or not as expected; names bucket and key.
        TransferFailed: a request failed after all retries.
        OutputError: the cache cannot be written, or is too small for one file.
    """
    singles = entries(manifest) or (manifest,)
    if index is not None:
        # The run itself reports an index that does not exist.
        singles = singles[max(0, index) : index + 1]
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
    """Return the paths of lists and packed files in the manifest."""
    lists = (data.train_list, data.selection_list, data.val_list)
    files = (data.train_file, data.selection_file, data.val_file)
    return [name for name in (*lists, *files) if name is not None]


class _Fetcher:
    """Downloads each input once."""

    def __init__(self, manifest: Manifest, say: Say) -> None:
        self.say = say
        self.access = access_of(manifest.storage, manifest.base)
        self.cache: Cache = self.access.cache()
        self.store: ObjectStore = self.access.store()
        self.paths: dict[S3Uri, Path] = {}

    def model(self, manifest: Manifest) -> None:
        """Download weights and inference model."""
        model = manifest.model
        if model.weights and (uri := manifest.uri(model.weights)):
            self._files([self.store.head(uri)])
        if model.inference_model and (uri := manifest.uri(model.inference_model)):
            self._inference_model(uri)

    def data(self, manifest: Manifest) -> None:
        """Download lists and packed files, and list the images."""
        data = manifest.data
        if data.format in ("digits", "synthetic"):
            return
        # Pillow and numpy would slow down `job --help`.
        from job.data.s3.describe import describe
        from job.manifest.spec import data_file

        root = manifest.uri(data.root or ".")
        for name in _files_of(data):
            uri = manifest.uri(data_file(data.root, name))
            if uri is not None:
                self._file(uri, with_sidecar=data.format == "packed")
        if root is not None and data.format != "packed" and root not in self.paths:
            self.say(f"listing {root}")
            folder = describe(root, manifest, self.access, self.store, self.cache, self.paths)
            self.paths[root] = folder

    def _file(self, uri: S3Uri, *, with_sidecar: bool) -> None:
        if uri in self.paths:
            return
        objects = [self.store.head(uri)]
        if with_sidecar:
            with suppress(ObjectMissing):
                objects.append(self.store.head(S3Uri(uri.bucket, f"{uri.key}{_SIDECAR}")))
        self._files(objects)

    def _inference_model(self, uri: S3Uri) -> None:
        """Download both files of an inference model.

        Args:
            uri: the common name of both files, one of them, or the prefix that they are below.

        Raises:
            DataError: the model does not exist.
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
            objects = [
                self.store.head(S3Uri(uri.bucket, f"{stem.key}{suffix}"))
                for suffix in _MODEL_SUFFIXES
            ]
        except ObjectMissing as error:
            raise DataError(
                f"{uri}: expected an inference model, found none: {error.message}",
                "Give MODEL for MODEL.pdmodel and MODEL.pdiparams, or the prefix they are below.",
            ) from error
        folder = self._files(objects)
        self.paths.setdefault(uri, folder / stem.name)

    def _files(self, objects: Sequence[S3Object]) -> Path:
        """Download files that belong together into one folder."""

        def fetch(folder: Path) -> None:
            for each in objects:
                self.say(f"downloading {each.uri} ({each.bytes:,} bytes)")
                self.store.download(
                    each.uri, folder / each.uri.name, bytes=each.bytes, etag=each.etag
                )

        name = "\n".join(self.access.name(each) for each in objects)
        folder = self.cache.files(name, sum(each.bytes for each in objects), fetch)
        for each in objects:
            self.paths[each.uri] = folder / each.uri.name
        return folder


def as_json(manifest: Manifest) -> Mapping[str, Any]:
    """Return the manifest's S3 prefix and its downloads, for :func:`from_json`."""
    prefix = manifest.prefix
    return {
        "prefix": None if prefix is None else [prefix.bucket, prefix.key],
        "localized": [[uri.bucket, uri.key, str(path)] for uri, path in manifest.localized.items()],
    }


def from_json(manifest: Manifest, origin: Mapping[str, Any]) -> Manifest:
    """Return the manifest with the result of :func:`as_json` in another process."""
    prefix = origin.get("prefix")
    return replace(
        manifest,
        prefix=None if prefix is None else S3Uri(*prefix),
        localized={
            S3Uri(bucket, key): Path(path) for bucket, key, path in origin.get("localized", ())
        },
    )
