"""List the objects of a data set below a prefix."""

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from job.data.archive_reading import is_plain_tar
from job.data.list_file import list_entries
from job.data.s3.listed import ListedObjects
from job.data.voc_lists import listed_files
from job.detection import coco, voc
from job.errors import DataError
from job.manifest import Manifest
from job.manifest.spec import data_file
from job.storage.files import open_regular
from job.storage.parallel import each
from job.storage.s3.objects import ObjectStore
from job.storage.s3.responses import S3Object
from job.uri import S3Uri, on_server

_THREADS = 16
# How many folders a message names.
_NAMED_FOLDERS = 3
_SPLITS = ("train", "selection", "val")


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
    dirs = [text for text in (data.train_dir, data.selection_dir, data.val_dir) if text]
    if data.format in ("class_folders", "images"):
        tops = [root if text == "." else root / posixpath.normpath(text) for text in dirs]
    elif data.format in ("voc", "coco"):
        folders, wanted = _files_with_objects(manifest, paths)
        tops = sorted({root / name for name in folders} | _tops(root, wanted))
        # The folders may contain more files than the lists name.
        wanted = wanted if not folders else None
    else:
        wanted = {
            name
            for path, text in lists_of(manifest, paths)
            for name, _ in list_entries(path, text, str(root), _classes(manifest, text))
        }
        tops = sorted(_tops(root, wanted))

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
        where = ", ".join(str(top) for top in tops[:_NAMED_FOLDERS]) or str(root)
        raise DataError(
            f"{on_server(where, store.server)}: no objects found",
            "Correct data.root, or the folders and lists in section data, or upload the data set.",
        )


def _classes(manifest: Manifest, list_file: str) -> int | None:
    """Return the number of classes of a list; None if the list has no labels."""
    unlabelled = list_file == manifest.data.train_list and not manifest.data.train_labels
    return None if unlabelled else manifest.model.classes


def _tops(root: S3Uri, names: Iterable[str]) -> set[S3Uri]:
    return {root / name.partition("/")[0] for name in names if "/" in name}


def _files_with_objects(
    manifest: Manifest, paths: Mapping[S3Uri, Path]
) -> tuple[set[str], set[str]]:
    """Return the folders and the single files that the lists of a data set refer to."""
    data = manifest.data
    folders: set[str] = set()
    names: set[str] = set()
    for path, text in lists_of(manifest, paths):
        with open_regular(path) as file:
            if data.format == "voc":
                more = listed_files(voc.image_set(file, text), text)
                folders, names = folders | more[0], names | more[1]
                continue
            split = next(each for each in _SPLITS if getattr(data, f"{each}_list") == text)
            folder = posixpath.normpath(getattr(data, f"{split}_dir") or ".")
            if folder != ".":
                folders.add(folder)
            else:
                names |= {posixpath.normpath(image.name) for image in coco.read(file, text).images}
    return folders, names


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
