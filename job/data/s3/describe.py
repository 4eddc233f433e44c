"""Describe a data set of images in S3, for planning and for reading it."""

import hashlib
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from job.data.archive_reading import Limits, is_archive, is_plain_tar
from job.data.decode import EXTENSIONS
from job.data.list_file import list_entries
from job.data.s3 import index as remote_index
from job.data.s3.archive import RemoteArchive, description, members_of, members_of_file
from job.data.s3.index import Member
from job.errors import DataError, OutputError
from job.manifest import Manifest
from job.manifest.spec import DataSpec, data_file
from job.storage.cache import Cache
from job.storage.files import write_bytes
from job.storage.parallel import each
from job.storage.s3.access import Access, input_errors
from job.storage.s3.objects import ObjectStore
from job.storage.s3.responses import S3Object
from job.uri import S3Uri

_THREADS = 16
_SHARDS_AT_ONCE = 2
# A tar file that is larger than this share of the cache is not stored in the cache.
_SHARE = 0.25
_FILE = "description"


def describe(
    root: S3Uri,
    manifest: Manifest,
    access: Access,
    store: ObjectStore,
    cache: Cache,
    paths: Mapping[S3Uri, Path],
) -> Path:
    """Describe a data set. It is an archive, a tar file, or a prefix with tar files or images.

    Args:
        root: the URI of the data set.
        manifest: gives its lists or folders.
        access: access to S3, for threads.
        store: an open object store.
        cache: stores the description.
        paths: the local paths of the downloaded lists.

    Returns:
        A file that has the same content as long as the data set does not change.

    Raises:
        DataError: the data set is empty, missing or damaged.
    """
    if is_archive(root.name):
        archive = store.head(root)
        if is_plain_tar(root.name):
            return _of_shards(root, [archive], access, store, cache)
        return _kept(cache, description(archive))
    objects = _listed(root, manifest, store, paths)
    shards = [entry for entry in objects if is_plain_tar(entry.uri.name)]
    if shards and not any(_is_image(entry) for entry in objects):
        return _of_shards(root, shards, access, store, cache)
    return _kept(cache, remote_index.of_objects(root, objects))


def _is_image(entry: S3Object) -> bool:
    return entry.uri.key.lower().endswith(tuple(EXTENSIONS))


def _listed(
    root: S3Uri, manifest: Manifest, store: ObjectStore, paths: Mapping[S3Uri, Path]
) -> Sequence[S3Object]:
    """List the objects that the manifest reads; the prefix may also contain an output.

    Tar files directly below the prefix are listed too, because they may contain the images.
    """
    data, wanted = manifest.data, None
    if data.format == "class_folders":
        dirs = [text for text in (data.train_dir, data.selection_dir, data.val_dir) if text]
        tops = [root if text == "." else root / posixpath.normpath(text) for text in dirs]
    else:
        wanted = set(_names(root, data, manifest, paths))
        tops = sorted({root / name.partition("/")[0] for name in wanted if "/" in name})
    objects = _list_below(tops, store)
    # If the root is one of the listed folders, its objects are already in the result.
    for entry in () if root in tops else store.directly_in(root):
        if is_plain_tar(entry.uri.name) or (wanted and entry.uri.name in wanted):
            objects[entry.uri] = entry
    if not objects:
        raise DataError(f"{root}: no objects found", "Correct data.root, or upload the data set.")
    return [
        entry
        for uri, entry in sorted(objects.items())
        # Some programs create empty objects for folders.
        if not uri.key.endswith("/")
        and (wanted is None or is_plain_tar(uri.name) or uri.key.removeprefix(root.below) in wanted)
    ]


def _names(
    root: S3Uri, data: DataSpec, manifest: Manifest, paths: Mapping[S3Uri, Path]
) -> Sequence[str]:
    """Return the image names in the lists."""
    names = []
    for text in (data.train_list, data.selection_list, data.val_list):
        if text:
            uri = manifest.uri(data_file(data.root, text))
            path = Path(text) if uri is None else paths[uri]
            names += [
                name for name, _ in list_entries(path, text, str(root), manifest.model.classes)
            ]
    return names


def _list_below(tops: Sequence[S3Uri], store: ObjectStore) -> dict[S3Uri, S3Object]:
    """List prefixes; each folder has its own request, because a response has at most 1,000 keys."""
    folders: list[S3Uri] = []
    objects: dict[S3Uri, S3Object] = {}

    def open_(top: S3Uri) -> None:
        inner, entries = store.level(top)
        folders.extend(inner)
        objects.update((entry.uri, entry) for entry in entries)

    def list_(folder: S3Uri) -> None:
        objects.update((entry.uri, entry) for entry in store.list(folder))

    each(open_, tops, _THREADS)
    each(list_, folders, _THREADS)
    return objects


def _of_shards(
    root: S3Uri, shards: Sequence[S3Object], access: Access, store: ObjectStore, cache: Cache
) -> Path:
    """Index the members of tar files; a tar file that has not changed is read only once."""
    members: dict[S3Uri, Sequence[Member]] = {}

    def index(shard: S3Object) -> None:
        members[shard.uri] = _members(shard, access, store)

    each(index, shards, _SHARDS_AT_ONCE)
    indexed = [(shard, members[shard.uri]) for shard in shards]
    return _kept(cache, remote_index.of_shards(root, indexed))


def _members(shard: S3Object, access: Access, store: ObjectStore) -> Sequence[Member]:
    """Return the members of a tar file, from the cache or by reading it.

    A small tar file is stored in the cache, and its members are read there.
    """
    cache = access.cache()
    name = f"members of {access.name(shard)}"
    kept = cache.kept_files(name)
    known = None if kept is None else remote_index.read_members(kept / _FILE)
    if known is not None:
        return known
    try:
        members = _fetched_members(shard, access, store, cache)
        _keep(cache, name, remote_index.of_members(members))
    finally:
        cache.release()
    return members


def _fetched_members(
    shard: S3Object, access: Access, store: ObjectStore, cache: Cache
) -> Sequence[Member]:
    limits = Limits()
    if shard.bytes <= _SHARE * access.cache_bytes:

        def fetch(folder: Path) -> None:
            store.download(shard.uri, folder / shard.uri.name, bytes=shard.bytes, etag=shard.etag)

        try:
            with input_errors():
                folder = cache.files(access.name(shard), shard.bytes, fetch)
            return members_of_file(folder / shard.uri.name, shard.uri, limits)
        except OutputError:
            # The cache has no room, so the tar file is read in S3.
            cache.release()
    return members_of(RemoteArchive(shard, store), limits)


def _kept(cache: Cache, content: bytes) -> Path:
    """Store a description in the cache, under a name that depends on its content."""
    return _keep(cache, f"description {hashlib.sha256(content).hexdigest()}", content)


def _keep(cache: Cache, name: str, content: bytes) -> Path:
    def fetch(folder: Path) -> None:
        write_bytes(folder / _FILE, content)

    return cache.files(name, len(content), fetch) / _FILE
