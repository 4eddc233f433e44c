"""The objects of a packed file's images, in a second file: ``<file>.objects.npz``.

Boxes are in pixels of the packed images. The arrays are described in ``job.detection.ragged``.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from job.data.transforms import Ints
from job.detection.annotations import Annotations
from job.detection.ragged import arrays_of_objects, objects_of
from job.errors import DataError
from job.storage.files import atomic_write, open_regular, output_errors


def objects_file(path: Path) -> Path:
    """Return the path of the objects of a packed file."""
    return path.with_name(path.name + ".objects.npz")


def write(path: Path, objects: Sequence[Annotations]) -> None:
    """Write the objects of the images of a packed file.

    Args:
        path: the packed file.
        objects: the objects of each image, in the order of the file.

    Raises:
        OutputError: the file cannot be written.
    """
    target = objects_file(path)
    with atomic_write(target) as file, output_errors(target):
        np.savez(file, **arrays_of_objects(objects))  # type: ignore[arg-type] # numpy's stub


def read(path: Path) -> list[Annotations]:
    """Return the objects of each image of a packed file.

    Args:
        path: the packed file.

    Raises:
        DataError: the file of the objects is missing or damaged.
    """
    source = objects_file(path)
    try:
        with open_regular(source) as file, np.load(file, allow_pickle=False) as arrays:
            return objects_of(dict(arrays))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot read {source}: {getattr(error, 'strerror', None) or error}",
            "Run again with --from prepare, or copy the file to the folder of the packed file.",
        ) from error


def targets_of(path: Path, labels: Ints) -> Ints | list[Annotations]:
    """Return the objects of each image of a packed file; its labels if it has no objects.

    Args:
        path: the packed file.
        labels: its labels, int64 ``[n]``.
    """
    return read(path) if objects_file(path).exists() else labels
