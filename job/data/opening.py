"""Open the splits of a manifest, on a local disk or in S3."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from job.data import packed, system_folders
from job.data.archive_reading import Progress, is_archive, is_plain_tar
from job.data.archives import unpack
from job.data.coco_set import CocoSplit, coco_sources
from job.data.data_files import DataFiles, LocalFiles, RemoteFiles
from job.data.listing import DataRoot, class_folders, image_list
from job.data.s3 import images as remote
from job.data.s3 import index as remote_index
from job.data.s3.archive import unpack_remote
from job.data.s3.images import Remote, RemoteImages
from job.data.scene_images import digit_scenes
from job.data.sources import ImageFiles, PackedImages, Source, digits
from job.data.voc_set import voc_sources
from job.errors import DataError
from job.manifest.spec import DataSpec, data_file, stands_alone
from job.text_format import plural
from job.uri import is_uri


@dataclass(frozen=True, eq=False)
class Given:
    """A split that the manifest gives.

    Attributes:
        key: its key in the manifest, such as ``train_list``.
        source: its images.
    """

    key: str
    source: Source

    @property
    def named(self) -> str:
        """The key, and the number of its files that were skipped."""
        skipped = skipped_text(self.source)
        return f"{self.key} ({skipped})" if skipped else self.key


def skipped_text(source: Source) -> str:
    """Return how many files of a source were skipped and why; or empty."""
    if not isinstance(source, ImageFiles | RemoteImages):
        return ""
    counts = [f"{source.ignored:,} that are not images"] if source.ignored else []
    if source.system_folders:
        counts.append(system_folders.describe(source.system_folders))
    if not counts:
        return ""
    total = source.ignored + sum(source.system_folders.values())
    return f"skipped {plural(total, 'file')}: {' and '.join(counts)}"


@dataclass(frozen=True)
class Opener:
    """Opens the splits of a data set; see ``splits.split`` for the fields."""

    spec: DataSpec
    classes: int
    input_shape: tuple[int, int, int]
    resolve: Callable[[str], Path]
    cache: Path
    remote: Remote | None
    progress: Progress | None
    class_names: tuple[str, ...] | None = None

    def given(self) -> Mapping[str, Given]:
        """Return the splits that the manifest gives, by ``train``, ``selection`` and ``val``.

        Raises:
            DataError: a file or folder is missing or malformed.
        """
        spec = self.spec
        if spec.format == "digits":
            loaded = checked_labels(digits(self.input_shape[0]), self.classes)
            return {"train": Given("the digits", loaded)}
        if spec.format == "digit_scenes":
            scenes = digit_scenes(self.input_shape)
            names = {"train": "training", "val": "test"}
            return {
                key: Given(f"the {names.get(key, key)} scenes", each)
                for key, each in scenes.items()
            }
        if spec.format == "packed":
            named = _named(spec.train_file, spec.selection_file, spec.val_file)
            return {key: Given(f"{key}_file", self._packed(name)) for key, name in named.items()}
        place = self._place()
        if spec.format == "imagenet_list":
            named = _named(spec.train_list, spec.selection_list, spec.val_list)
            return {
                key: Given(f"{key}_list", self._list(place, it, labelled=self._has_labels(key)))
                for key, it in named.items()
            }
        if spec.format in ("voc", "coco", "images"):
            return self._unlabelled_names(place)
        return self._class_folders(place)

    def _unlabelled_names(
        self, place: "DataRoot | remote_index.RemoteIndex"
    ) -> Mapping[str, Given]:
        """Return the splits of a format whose images have objects or nothing."""
        spec = self.spec
        files = self._files(place)
        dirs = _named(spec.train_dir, spec.selection_dir, spec.val_dir)
        channels = self.input_shape[0]
        if spec.format == "images":
            return {
                key: Given(f"{key}_dir", self._image_folder(files, name))
                for key, name in dirs.items()
            }
        lists = {
            key: (name, self._outside(name))
            for key, name in _named(spec.train_list, spec.selection_list, spec.val_list).items()
        }
        known = {"classes": self.classes, "channels": channels}
        if spec.format == "voc":
            found = voc_sources(files, lists, class_names=self.class_names, **known)
        else:
            splits = {key: CocoSplit(*it, dirs.get(key, "")) for key, it in lists.items()}
            found = coco_sources(files, splits, class_names=self.class_names, **known)
        return {key: Given(f"{key}_list", source) for key, source in found.items()}

    def _files(self, place: "DataRoot | remote_index.RemoteIndex") -> DataFiles:
        if isinstance(place, DataRoot):
            return LocalFiles(place)
        assert self.remote is not None  # noqa: S101 - an index exists only for S3
        return RemoteFiles(place, self.remote)

    def _image_folder(self, files: DataFiles, name: str) -> Source:
        images = files.images(name)
        if not images:
            raise DataError(f"{name} in {files.where}: the folder has no image", "Add images.")
        return files.source(images, self.input_shape[0])

    def _outside(self, name: str) -> Path | None:
        """Return the local path of a list outside an archive or a local folder; otherwise None."""
        root = self.spec.root
        in_archive = root is not None and is_archive(root)
        inside = self.remote is None or in_archive
        return None if inside and not stands_alone(name) else self._below_root(name)

    def _below_root(self, name: str) -> Path:
        """Return the path of a list or packed file."""
        return self.resolve(data_file(self.spec.root, name))

    def _packed(self, name: str) -> Source:
        path = self._below_root(name)
        labels = packed.open_packed(path, self.input_shape).labels
        images = PackedImages(path=path, shape=self.input_shape, labels=labels)
        return checked_labels(images, self.classes)

    def _place(self) -> "DataRoot | remote_index.RemoteIndex":
        root = self.resolve(self.spec.root or ".")
        if self.remote is not None:
            uri = self.remote.uri
            if is_archive(uri.name) and not is_plain_tar(uri.name):
                folder = unpack_remote(self.remote, root, self.cache, progress=self.progress)
                return DataRoot(folder, str(uri))
            return remote_index.read(root, uri)
        if root.is_dir():
            return DataRoot(root, str(root))
        if not root.exists():
            raise DataError(
                f"data.root {root} does not exist", "Correct data.root in the manifest."
            )
        if not is_archive(root.name):
            raise DataError(
                f"data.root {root}: expected a folder or a .tar, .tar.gz, .tgz or .zip archive"
            )
        return DataRoot(unpack(root, self.cache, progress=self.progress), str(root))

    def _has_labels(self, split: str) -> bool:
        return split != "train" or self.spec.train_labels

    def _list(
        self, place: "DataRoot | remote_index.RemoteIndex", name: str, *, labelled: bool
    ) -> Source:
        channels = self.input_shape[0]
        classes = self.classes if labelled else None
        if isinstance(place, DataRoot):
            local = str(self.resolve(name)) if is_uri(name) else name
            return image_list(place, local, classes=classes, channels=channels)
        assert self.remote is not None  # noqa: S101 - an index exists only for S3
        return remote.remote_list(
            place,
            self.remote,
            self._below_root(name),
            name,
            classes=classes,
            channels=channels,
        )

    def _class_folders(self, place: "DataRoot | remote_index.RemoteIndex") -> Mapping[str, Given]:
        spec = self.spec
        opened: dict[str, Given] = {}
        first: tuple[str, list[str]] | None = None
        for name, text in _named(spec.train_dir, spec.selection_dir, spec.val_dir).items():
            if not self._has_labels(name):
                unlabelled = self._image_folder(self._files(place), text)
                opened[name] = Given(f"{name}_dir", unlabelled)
                continue
            source, class_names = self._folder(place, text)
            first = first or (text, class_names)
            if first[1] != class_names:
                other = sorted(set(first[1]) ^ set(class_names))
                raise DataError(
                    f"{source.where}: {first[0]} and {text} must have the same class folders, but "
                    f"only one of them has {', '.join(other[:5])}",
                    "Add or remove class folders.",
                )
            opened[name] = Given(f"{name}_dir", source)
        return opened

    def _folder(
        self, place: "DataRoot | remote_index.RemoteIndex", text: str
    ) -> tuple[Source, list[str]]:
        classes, channels = self.classes, self.input_shape[0]
        if isinstance(place, DataRoot):
            local, names = class_folders(place, text, classes=classes, channels=channels)
            return local, list(names)
        assert self.remote is not None  # noqa: S101 - an index exists only for S3
        images, names = remote.remote_class_folders(
            place, self.remote, text, classes=classes, channels=channels
        )
        return images, list(names)


def _named(train: str | None, selection: str | None, val: str | None) -> dict[str, str]:
    given = {"train": train, "selection": selection, "val": val}
    return {key: text for key, text in given.items() if text is not None}


def checked_labels(source: Source, classes: int) -> Source:
    """Return a source after checking that its labels are 0 to ``classes`` - 1.

    Raises:
        DataError: a label is outside this range.
    """
    outside = np.flatnonzero((source.labels < 0) | (source.labels >= classes))
    if outside.size:
        first = int(outside[0])
        raise DataError(
            f"{source.where}: {outside.size:,} of {len(source):,} labels are outside 0 to "
            f"{classes - 1}; the first is label {int(source.labels[first])} of image {first}",
            "Check model.classes, and that this is the right file.",
        )
    return source
