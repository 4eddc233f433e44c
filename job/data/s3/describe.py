"""Describes a data set of images in S3, for planning and for those that read it."""

import hashlib
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from job.data.archive_reading import Limits, is_archive, is_plain_tar
from job.data.decode import EXTENSIONS
from job.data.listing import list_entries
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
from job.storage.s3.objects import ObjectStore, S3Object
from job.uri import S3Uri

_THREADS = 16
_SHARDS_AT_ONCE = 2
# A tar file that takes more of the cache than this is read twice instead of kept.
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
    """Describe a data set: an archive, a tar file, a prefix of tar files or of images.

    Args:
        root: its address.
        manifest: names its lists or folders.
        access: the way there.
        store: the way there, open.
        cache: keeps the description.
        paths: the lists that have been fetched.

    Returns:
        A file that is the same as long as the data set is.

    Raises:
        DataError: there is nothing, or it is damaged.
    """
    if is_archive(root.name):
        found = store.head(root)
        if is_plain_tar(root.name):
            return _of_shards(root, [found], access, store, cache)
        return _kept(cache, description(found))
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
    """List what the manifest reads below a prefix, and no more: its output may be there too.

    Tar files directly below it are listed as well, for the case that they hold the images.
    """
    data, wanted = manifest.data, None
    if data.format == "class_folders":
        dirs = [text for text in (data.train_dir, data.selection_dir, data.val_dir) if text]
        tops = [root if text == "." else root / posixpath.normpath(text) for text in dirs]
    else:
        wanted = set(_names(root, data, manifest, paths))
        tops = sorted({root / name.partition("/")[0] for name in wanted if "/" in name})
    found = _list_below(tops, store)
    for entry in store.directly_in(root):
        if is_plain_tar(entry.uri.name) or (wanted and entry.uri.name in wanted):
            found[entry.uri] = entry
    if not found:
        raise DataError(f"{root}: there is nothing below", "Correct data.root, or put it there.")
    return [
        entry
        for uri, entry in sorted(found.items())
        # Some programs make objects that stand for folders.
        if not uri.key.endswith("/")
        and (wanted is None or is_plain_tar(uri.name) or uri.key.removeprefix(root.below) in wanted)
    ]


def _names(
    root: S3Uri, data: DataSpec, manifest: Manifest, paths: Mapping[S3Uri, Path]
) -> Sequence[str]:
    """The images that the lists name."""
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
    """List prefixes, each of their folders by itself: an answer has a thousand names at most."""
    folders: list[S3Uri] = []
    found: dict[S3Uri, S3Object] = {}

    def open_(top: S3Uri) -> None:
        folders.extend(store.folders(top))
        found.update((entry.uri, entry) for entry in store.directly_in(top))

    def list_(folder: S3Uri) -> None:
        found.update((entry.uri, entry) for entry in store.list(folder))

    each(open_, tops, _THREADS)
    each(list_, folders, _THREADS)
    return found


def _of_shards(
    root: S3Uri, shards: Sequence[S3Object], access: Access, store: ObjectStore, cache: Cache
) -> Path:
    """Index the members of tar files; each is read once as long as it does not change."""
    members: dict[S3Uri, Sequence[Member]] = {}

    def index(shard: S3Object) -> None:
        members[shard.uri] = _members(shard, access, store)

    each(index, shards, _SHARDS_AT_ONCE)
    indexed = [(shard, members[shard.uri]) for shard in shards]
    return _kept(cache, remote_index.of_shards(root, indexed))


def _members(shard: S3Object, access: Access, store: ObjectStore) -> Sequence[Member]:
    """Return a tar file's members, from an earlier time or by reading it.

    One that fits well is kept in the cache, from where its members are then read.
    """
    cache = access.cache()
    name = f"members of {access.name(shard)}"
    kept = cache.kept_files(name)
    known = None if kept is None else remote_index.read_members(kept / _FILE)
    if known is not None:
        return known
    try:
        found = _fetched_members(shard, access, store, cache)
        _keep(cache, name, remote_index.of_members(found))
    finally:
        cache.release()
    return found


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
            # No room: read it where it is.
            cache.release()
    return members_of(RemoteArchive(shard, store), limits)


def _kept(cache: Cache, content: bytes) -> Path:
    """Put a description into the cache, under a name that tells its content."""
    return _keep(cache, f"description {hashlib.sha256(content).hexdigest()}", content)


def _keep(cache: Cache, name: str, content: bytes) -> Path:
    def fetch(folder: Path) -> None:
        write_bytes(folder / _FILE, content)

    return cache.files(name, len(content), fetch) / _FILE
