"""Reads and checks a manifest."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.api.model_checks import check_models
from job.manifest import Manifest, load, parse

# The name of a manifest that is not in a file, in messages.
UNNAMED = "manifest"

Source = str | os.PathLike[str] | Mapping[str, Any]


def validate(manifest: Source, *, overrides: Sequence[str] = ()) -> Manifest:
    """Check a manifest and return it.

    Also checks the kind of the model's files and the function of a custom network, without
    executing its code. Files that are missing or in S3 are not checked.

    Args:
        manifest: path of a JSON file, its ``s3://`` URI, ``-`` for standard input, or the content
            as a mapping. Paths in a mapping are relative to the current directory.
        overrides: texts such as ``train.max_iters=100``.

    Returns:
        The manifest with all defaults; ``resolved`` is the whole as JSON values.

    Raises:
        ManifestError: the manifest is invalid; ``faults`` lists every fault.
        UsageError: the manifest cannot be read, or an override has no ``=``.
        DataError: the manifest in S3 cannot be read, or a file of the model has the wrong kind or
            contains no network of the task.
    """
    loaded = read_manifest(manifest, overrides)
    check_models(loaded, name_of(manifest))
    return loaded


def read_manifest(manifest: Source, overrides: Sequence[str] = ()) -> Manifest:
    """Return a manifest that matches the schema and the rules; no file of the model is read."""
    if isinstance(manifest, Mapping):
        return parse(manifest, UNNAMED, Path.cwd(), overrides)
    return load(os.fspath(manifest), overrides)


def name_of(manifest: Source) -> str:
    """Return the name of a manifest in messages."""
    return UNNAMED if isinstance(manifest, Mapping) else os.fspath(manifest)
