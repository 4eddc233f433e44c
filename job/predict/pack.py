"""Writes a manifest's test split to a packed file, see :mod:`job.data.packed`."""

from pathlib import Path

from job.manifest import Manifest
from job.pipeline.output_location import open_output, place_of
from job.stages.stage import Record
from job.ui.protocol import StageEvents, Ui


def pack_test_split(manifest: Manifest, path: Path, ui: Ui) -> Record:
    """Write a manifest's test split to a packed file, batch by batch, and its sidecar.

    Args:
        manifest: names the data set and the transform.
        path: path of the packed file, which is written atomically; missing folders are created.
        ui: shows progress, and images that cannot be read.

    Returns:
        The sidecar's content, see ``job.data.packed.write``.

    Raises:
        DataError: the data is missing, or too many images cannot be read.
        OutputError: the file cannot be written.
    """
    # Imported here, because `job --help` must not import Pillow and numpy.
    from job.data.s3.images import remote_of
    from job.data.splits import split
    from job.stages.prepare import pack
    from job.storage.files import output_errors

    model, events = manifest.model, StageEvents(ui, "pack")
    splits = split(
        manifest.data,
        model.classes,
        model.input_shape,
        manifest.path,
        # The manifest's runs use the same folder, so an archive is unpacked only once.
        open_output(place_of(manifest.output), manifest, events.message).root / ".cache",
        remote=remote_of(manifest),
        # One byte less than the total: archives are read ahead, so files may still be unwritten.
        progress=lambda done, total: events.progress(
            "unpack", min(done, total - 1), total, "bytes"
        ),
    )
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return pack(manifest, splits.test, "test", path, events, [])
