"""List the objects of a data set below a prefix."""

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from job.data.archive_reading import is_plain_tar
from job.data.list_file import list_entries
from job.data.s3.listed import ListedObjects
from job.errors import DataError
from job.manifest import Manifest
from job.manifest.spec import data_file
from job.storage.parallel import each
from job.storage.s3.objects import ObjectStore
from job.storage.s3.responses import S3Object
from job.uri import S3Uri

_THREADS = 16


def list_objects(
    root: S3Uri,
    manifest: Manifest,
    store: ObjectStore,
    paths: Mapping[S3Uri, Path],
    listed: ListedObjects,
) -> None:
    """List the objects that the manifest reads; the prefix may also contain an output.

    Tar files directly below the prefix are listed too, because they may contain the images.

    Args:
        root: the URI of the data set.
        manifest: gives its lists or folders.
        store: an open object store.
        paths: the local paths of the downloaded lists.
        listed: receives the objects.

    Raises:
        DataError: there are no objects.
    """
    data, wanted = manifest.data, None
    if data.format in ("class_folders", "images"):
        dirs = [text for text in (data.train_dir, data.selection_dir, data.val_dir) if text]
        tops = [root if text == "." else root / posixpath.normpath(text) for text in dirs]
    elif data.format in ("voc", "coco"):
        # The lists and the annotations name the images, and they are below the root, too.
        tops = [root]
    else:
        wanted = {
            name
            for path, text in lists_of(manifest, paths)
            for name, _ in list_entries(path, text, str(root), manifest.model.classes)
        }
        tops = sorted({root / name.partition("/")[0] for name in wanted if "/" in name})

    def belongs(entry: S3Object) -> bool:
        # Some programs create empty objects for folders.
        if entry.uri.key.endswith("/"):
            return False
        named = wanted is None or entry.uri.key.removeprefix(root.below) in wanted
        return named or is_plain_tar(entry.uri.name)

    def belongs_to_root(entry: S3Object) -> bool:
        return is_plain_tar(entry.uri.name) or bool(wanted and entry.uri.name in wanted)

    list_below(tops, store, lambda objects: listed.add(objects, belongs))
    # If the root is one of the listed folders, its objects are already in the result.
    if root not in tops:
        listed.add(filter(belongs_to_root, store.directly_in(root)), belongs)
    if not listed.seen:
        raise DataError(f"{root}: no objects found", "Correct data.root, or upload the data set.")


def lists_of(manifest: Manifest, paths: Mapping[S3Uri, Path]) -> Sequence[tuple[Path, str]]:
    """Return the lists of a data set: the local path, and the name in the manifest.

    Args:
        manifest: the manifest.
        paths: the local paths of the downloaded lists.
    """
    data = manifest.data
    texts = [text for text in (data.train_list, data.selection_list, data.val_list) if text]
    uris = [manifest.uri(data_file(data.root, text)) for text in texts]
    return [
        (Path(text) if uri is None else paths[uri], text)
        for text, uri in zip(texts, uris, strict=True)
    ]


def list_below(
    tops: Sequence[S3Uri], store: ObjectStore, add: Callable[[Iterable[S3Object]], None]
) -> None:
    """List prefixes; each folder has its own request, because a response has at most 1,000 keys.

    Args:
        tops: the prefixes.
        store: an open object store.
        add: receives the objects of a page, or of a folder, in any thread.
    """
    folders: list[S3Uri] = []

    def open_(top: S3Uri) -> None:
        for inner, objects in store.level(top):
            folders.extend(inner)
            add(objects)

    each(open_, tops, _THREADS)
    each(lambda folder: add(store.list(folder, etags=True)), folders, _THREADS)
