"""Checks the output's location before anything is read or written."""

from pathlib import Path

from job.errors import UsageError
from job.manifest import Manifest, entries
from job.pipeline.output_location import Location


def check_output(manifest: Manifest, output: Location) -> None:
    """Check that the output is outside the image folders of the data set.

    Args:
        manifest: a manifest of one model or of a matrix.
        output: the output's location.

    Raises:
        UsageError: the results of the run would become images of the data set.
    """
    if not isinstance(output, Path):
        return
    place = output.resolve()
    for single in entries(manifest) or (manifest,):
        for key, folder in _image_folders(single).items():
            if place.is_relative_to(folder):
                raise UsageError(
                    f"the output {output} is inside the images of /data/{key} ({folder})",
                    "Start `job` in another folder, or set --output to a folder outside the "
                    "images. Otherwise the results would become a class of the data set.",
                )


def _image_folders(manifest: Manifest) -> dict[str, Path]:
    """Return the folders in which every image belongs to a split, by key of the manifest."""
    data = manifest.data
    if data.format not in ("class_folders", "images") or manifest.uri(data.root or "."):
        return {}
    root = manifest.path(data.root or ".")
    names = {key: getattr(data, key) for key in ("train_dir", "selection_dir", "val_dir")}
    return {key: (root / name).resolve() for key, name in names.items() if name}
