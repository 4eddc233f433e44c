"""Describe a data set of images in S3, for planning and for reading it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from job.data.archive_reading import Limits, is_archive, is_plain_tar
from job.data.decode import EXTENSIONS
from job.data.s3 import index as remote_index
from job.data.s3.archive import RemoteArchive, description, members_of, members_of_file
from job.data.s3.index import Member
from job.data.s3.known_listing import KnownListing
from job.data.s3.list_objects import list_objects
from job.data.s3.listed import ListedObjects
from job.errors import OutputError
from job.events import Say
from job.manifest import Manifest
from job.storage.cache import Cache
from job.storage.files import replace_file, write_bytes
from job.storage.parallel import each
from job.storage.s3.access import Access, input_errors
from job.storage.s3.objects import ObjectStore
from job.storage.s3.responses import S3Object
from job.uri import S3Uri

_SHARDS_AT_ONCE = 2
# A tar file that is larger than this share of the cache is not stored in the cache.
_SHARE = 0.25
_FILE = "description"


def describe(
    root: S3Uri,
    manifest: Manifest,
    access: Access,
    open_store: Callable[[], ObjectStore],
    cache: Cache,
    paths: Mapping[S3Uri, Path],
    *,
    reuse_listing: bool = False,
    say: Say,
) -> Path:
    """Describe a data set. It is an archive, a tar file, or a prefix with tar files or images.

    Args:
        root: the URI of the data set.
        manifest: gives its lists or folders.
        access: access to S3, for threads.
        open_store: returns an object store.
        cache: stores the description.
        paths: the local paths of the downloaded lists.
        reuse_listing: whether the listing of an earlier command may be used.
        say: callback for progress messages.

    Returns:
        A file that has the same content as long as the data set does not change.

    Raises:
        DataError: the data set is empty, missing or damaged.
    """
    if is_archive(root.name):
        say(f"listing {root}")
        store = open_store()
        archive = store.head(root)
        if is_plain_tar(root.name):
            return _of_shards(root, [archive], access, store, cache)
        return _kept(cache, description(archive))
    known = KnownListing(root, manifest, access, cache, paths)
    if reuse_listing and (earlier := known.description(say)):
        return earlier
    say(f"listing {root}")
    store = open_store()
    with cache.temporary() as folder, ListedObjects.open(folder / "objects", root, say) as listed:
        list_objects(root, manifest, store, paths, listed)
        path = _of_listed(root, listed, folder, access, store, cache)
    known.keep(path)
    return path


def _of_listed(
    root: S3Uri,
    listed: ListedObjects,
    folder: Path,
    access: Access,
    store: ObjectStore,
    cache: Cache,
) -> Path:
    """Describe tar files or images below a prefix; ``folder`` is for a temporary file."""
    shards = [
        S3Object(S3Uri(root.bucket, key), size, etag, remote_index.UNKNOWN_TIME)
        for key, size, etag in listed
        if is_plain_tar(key)
    ]
    if shards and not any(_is_image(key) for key, _, _ in listed):
        return _of_shards(root, shards, access, store, cache)
    written, digest = folder / _FILE, hashlib.sha256()
    with written.open("wb") as file:
        for line in remote_index.object_lines(root, listed):
            digest.update(line)
            file.write(line)

    def fetch(into: Path) -> None:
        replace_file(written, into / _FILE)

    return cache.files(f"description {digest.hexdigest()}", written.stat().st_size, fetch) / _FILE


def _is_image(key: str) -> bool:
    return key.lower().endswith(tuple(EXTENSIONS))


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
    limits, remote = Limits(), RemoteArchive(shard, store)
    if shard.bytes <= _SHARE * access.cache_bytes:

        def fetch(folder: Path) -> None:
            store.download(shard.uri, folder / shard.uri.name, bytes=shard.bytes, etag=shard.etag)

        try:
            with input_errors():
                folder = cache.files(access.name(shard), shard.bytes, fetch)
            return members_of_file(folder / shard.uri.name, str(remote), limits)
        except OutputError:
            # The cache has no room, so the tar file is read in S3.
            cache.release()
    return members_of(remote, limits)


def _kept(cache: Cache, content: bytes) -> Path:
    """Store a description in the cache, under a name that depends on its content."""
    return _keep(cache, f"description {hashlib.sha256(content).hexdigest()}", content)


def _keep(cache: Cache, name: str, content: bytes) -> Path:
    def fetch(folder: Path) -> None:
        write_bytes(folder / _FILE, content)

    return cache.files(name, len(content), fetch) / _FILE
