"""Checks the output's location before anything is read or written."""

import posixpath
from pathlib import Path

from job.errors import UsageError
from job.manifest import Manifest, entries
from job.pipeline.output_location import Location
from job.pipeline.shards import FOLDER
from job.text_format import plural
from job.uri import MAX_KEY_BYTES, S3Uri, key_bytes

# The longest name is /runs/RUN/COMMIT/.partial/baseline/checkpoints/step-000000060.npz. RUN has 24
# characters. The rest is room for more digits and for future files.
LONGEST_NAME_BYTES = 120
_EXCERPT = 100


def check_output(manifest: Manifest, output: Location) -> None:
    """Check that the output is outside the image folders, and that its keys in S3 are not too long.

    Args:
        manifest: a manifest of one model or of a matrix.
        output: the output's location.

    Raises:
        UsageError: the results of the run would become images of the data set, or a key is longer
            than S3 allows.
    """
    if isinstance(output, S3Uri):
        _check_key_length(manifest, output)
    place = output.resolve() if isinstance(output, Path) else output
    for single in entries(manifest) or (manifest,):
        for key, folder in _image_folders(single).items():
            if _is_inside(place, folder):
                raise UsageError(
                    f"the output {output} is inside the images of /data/{key} ({folder})",
                    "Start `job` in another folder, or set --output to a folder outside the "
                    "images. Otherwise the results would become a class of the data set.",
                )


def _check_key_length(manifest: Manifest, output: S3Uri) -> None:
    models = [len(f"/{entry.name}") for entry in manifest.matrix or ()]
    shards = manifest.accuracy.shards
    part = len(f"/{FOLDER}/{shards - 1}") if shards > 1 else 0
    length = key_bytes(output.key) + max(models, default=0) + part + LONGEST_NAME_BYTES
    if length > MAX_KEY_BYTES:
        raise UsageError(
            f"the output {str(output)[:_EXCERPT]}... is too long: with file names, its keys have "
            f"up to {length:,} bytes, and S3 allows {MAX_KEY_BYTES:,} bytes",
            f"Shorten the output by at least {plural(length - MAX_KEY_BYTES, 'byte')}.",
        )


def _is_inside(place: Location, folder: Location) -> bool:
    if isinstance(place, Path) and isinstance(folder, Path):
        return place.is_relative_to(folder)
    if isinstance(place, S3Uri) and isinstance(folder, S3Uri):
        return place.bucket == folder.bucket and place.below.startswith(folder.below)
    return False


def _image_folders(manifest: Manifest) -> dict[str, Location]:
    """Return the folders in which every image belongs to a split, by key of the manifest."""
    data = manifest.data
    if data.format not in ("class_folders", "images"):
        return {}
    names = {key: getattr(data, key) for key in ("train_dir", "selection_dir", "val_dir")}
    uri = manifest.uri(data.root or ".")
    if uri is not None:
        return {key: _below(uri, name) for key, name in names.items() if name}
    root = manifest.path(data.root or ".")
    return {key: (root / name).resolve() for key, name in names.items() if name}


def _below(root: S3Uri, name: str) -> S3Uri:
    folder = posixpath.normpath(name)
    return root if folder == "." else root / folder
