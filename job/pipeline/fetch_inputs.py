"""Download the inputs of a manifest from S3, before a run is planned.

Files that are opened by path (weights, models, lists, packed files) are downloaded into the cache.
For a data set of images, only a list is downloaded. It contains the name and the ETag or checksum
of each image. The images are read when they are needed. All files stay in the cache until the run
has ended.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from job.errors import DataError, ObjectMissing
from job.events import Say
from job.manifest import Manifest, entries
from job.manifest.spec import BUILT_IN, DataSpec
from job.manifest.storage_access import access_of
from job.storage.cache import Cache
from job.storage.s3.access import input_errors
from job.storage.s3.objects import ObjectStore
from job.storage.s3.responses import S3Object
from job.uri import S3Uri

# A program of the legacy format has priority over a program of Paddle 3.
_PROGRAM_SUFFIXES = (".pdmodel", ".json")
_PARAMETER_SUFFIX = ".pdiparams"
_SIDECAR = ".json"


@contextmanager
def localized(
    manifest: Manifest, say: Say, index: int | None = None, *, reuse_listing: bool = False
) -> Iterator[Manifest]:
    """Download the inputs of a manifest from S3, and yield the manifest with their local paths.

    Args:
        manifest: a manifest of one model or of a matrix.
        say: callback for status messages.
        index: the number of one model of a matrix; None for all models.
        reuse_listing: whether the listing of an earlier command may be used, see
            :mod:`job.data.s3.known_listing`.

    Yields:
        The manifest; the files stay in the cache until the block ends.

    Raises:
        DataError: an object is missing, access is denied, or a checksum does not match. The
            message names bucket and key.
        TransferFailed: the network or the server failed at every attempt.
        OutputError: the cache cannot be written, or is too small for one file.
    """
    singles = entries(manifest) or (manifest,)
    if index is not None:
        singles = singles[max(0, index) : index + 1]  # a wrong number is reported later
    if not any(reads_s3(single) for single in singles):
        yield manifest
        return
    fetcher = _Fetcher(manifest, say, reuse_listing=reuse_listing)
    try:
        with input_errors():
            for single in singles:
                fetcher.model(single)
                fetcher.data(single)
        yield replace(manifest, localized=fetcher.paths)
    finally:
        fetcher.cache.release()


def reads_s3(manifest: Manifest) -> bool:
    """Whether a manifest of one model has an input in S3."""
    model, data = manifest.model, manifest.data
    texts = [model.weights, model.inference_model, *_files_of(data), data.root]
    if data.format not in BUILT_IN and data.root is None:
        texts.append(".")
    return any(text is not None and manifest.uri(text) is not None for text in texts)


def _files_of(data: DataSpec) -> Sequence[str]:
    """Return the lists or packed files, as in the manifest."""
    lists = (data.train_list, data.selection_list, data.val_list)
    files = (data.train_file, data.selection_file, data.val_file)
    return [name for name in (*lists, *files) if name is not None]


class _Fetcher:
    """Downloads each input once."""

    def __init__(self, manifest: Manifest, say: Say, *, reuse_listing: bool) -> None:
        self.say = say
        self.reuse_listing = reuse_listing
        self.access = access_of(manifest.storage, manifest.base)
        self.cache: Cache = self.access.cache()
        self.paths: dict[S3Uri, Path] = {}

    @cached_property
    def store(self) -> ObjectStore:
        """Access to S3. Creating a client takes half a second, which a known listing saves."""
        return self.access.store(self.say)

    def model(self, manifest: Manifest) -> None:
        """Download weights and a given inference model."""
        model = manifest.model
        if model.weights and (uri := manifest.uri(model.weights)):
            self._files([self.store.head(uri)])
        if model.inference_model and (uri := manifest.uri(model.inference_model)):
            self._inference_model(uri)

    def data(self, manifest: Manifest) -> None:
        """Download lists and packed files, and describe images."""
        data = manifest.data
        if data.format in BUILT_IN:
            return
        # Pillow and numpy are imported here, because `job --help` does not need them.
        from job.data.archive_reading import is_archive
        from job.data.s3.describe import describe
        from job.manifest.spec import data_file, stands_alone

        root = manifest.uri(data.root or ".")
        # The lists of data sets with objects may be in the archive.
        packed = data.format in ("voc", "coco") and root is not None and is_archive(root.name)
        for name in _files_of(data):
            uri = manifest.uri(data_file(data.root, name))
            if uri is not None and not (packed and not stands_alone(name)):
                self._file(uri, with_sidecar=data.format == "packed")
        if root is not None and data.format != "packed" and root not in self.paths:
            self.paths[root] = describe(
                root,
                manifest,
                self.access,
                lambda: self.store,
                self.cache,
                self.paths,
                reuse_listing=self.reuse_listing,
                say=self.say,
            )

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
            uri: their common prefix, one of the files, or the folder that contains them.

        Raises:
            DataError: the model does not exist.
        """
        if uri in self.paths:
            return
        stem = uri
        if uri.key.endswith((*_PROGRAM_SUFFIXES, _PARAMETER_SUFFIX)):
            stem = S3Uri(uri.bucket, uri.key.rpartition(".")[0])
        elif inside := _model_in(each.uri.key for each in self.store.directly_in(uri)):
            stem = S3Uri(uri.bucket, inside)
        try:
            objects = [
                self._program(stem),
                self.store.head(S3Uri(uri.bucket, f"{stem.key}{_PARAMETER_SUFFIX}")),
            ]
        except ObjectMissing as error:
            raise DataError(
                f"{uri}: no inference model found: {error.message}",
                "Set /model/inference_model to s3://BUCKET/PREFIX/MODEL for MODEL.pdmodel (or "
                "MODEL.json) and MODEL.pdiparams, or to the prefix of their folder.",
            ) from error
        folder = self._files(objects)
        self.paths.setdefault(uri, folder / stem.name)

    def _program(self, stem: S3Uri) -> S3Object:
        """Return the program of a model; the legacy format has priority.

        Raises:
            ObjectMissing: there is no program; the error names the legacy file.
        """
        legacy, pir = (S3Uri(stem.bucket, f"{stem.key}{suffix}") for suffix in _PROGRAM_SUFFIXES)
        try:
            return self.store.head(legacy)
        except ObjectMissing:
            with suppress(ObjectMissing):
                return self.store.head(pir)
            raise

    def _files(self, objects: Sequence[S3Object]) -> Path:
        """Download objects that belong together into one folder."""

        def fetch(folder: Path) -> None:
            for each in objects:
                self.say(f"downloading {each.uri}, {each.bytes:,} bytes")
                self.store.download(
                    each.uri, folder / each.uri.name, bytes=each.bytes, etag=each.etag
                )

        name = "\n".join(self.access.name(each) for each in objects)
        folder = self.cache.files(name, sum(each.bytes for each in objects), fetch)
        for each in objects:
            self.paths[each.uri] = folder / each.uri.name
        return folder


def _model_in(keys: Iterable[str]) -> str | None:
    """Return the key without suffix of the first model in a folder; None if there is none."""
    found = set(keys)
    for suffix in _PROGRAM_SUFFIXES:
        for key in sorted(key for key in found if key.endswith(suffix)):
            stem = key.removesuffix(suffix)
            # A folder can also contain other JSON files.
            if suffix == _PROGRAM_SUFFIXES[0] or f"{stem}{_PARAMETER_SUFFIX}" in found:
                return stem
    return None


def as_json(manifest: Manifest) -> Mapping[str, Any]:
    """Return the prefix and the local paths of a manifest, for :func:`from_json`."""
    prefix = manifest.prefix
    return {
        "prefix": None if prefix is None else [prefix.bucket, prefix.key],
        "localized": [[uri.bucket, uri.key, str(path)] for uri, path in manifest.localized.items()],
    }


def from_json(manifest: Manifest, document: Mapping[str, Any]) -> Manifest:
    """Return a manifest with the prefix and the local paths that :func:`as_json` returned."""
    prefix = document.get("prefix")
    return replace(
        manifest,
        prefix=None if prefix is None else S3Uri(*prefix),
        localized={
            S3Uri(bucket, key): Path(path) for bucket, key, path in document.get("localized", ())
        },
    )
