"""The locations in a manifest from S3, for a pod that reads the manifest from a ConfigMap."""

import copy
from collections.abc import Mapping
from typing import Any

from job.manifest import Manifest
from job.manifest.pointer import split_pointer
from job.manifest.spec import BUILT_IN

# The keys whose relative values start at the manifest's prefix. Lists and packed files start at
# data.root.
_PATHS = (("model", "weights"), ("model", "inference_model"), ("data", "root"))


def with_uris(manifest: Manifest) -> Mapping[str, Any]:
    """Return the document of a manifest, with S3 URIs instead of paths relative to its prefix.

    In the pod, the manifest has no prefix, so a relative path would start at ``/work``.

    Args:
        manifest: a manifest from S3 or from this machine. The latter is returned unchanged.
    """
    if manifest.prefix is None:
        return manifest.resolved
    document: dict[str, Any] = copy.deepcopy({**manifest.resolved})
    for section, key in _PATHS:
        document[section][key] = _uri(manifest, document[section][key])
    if manifest.data.root is None and manifest.data.format not in BUILT_IN:
        document["data"]["root"] = str(manifest.prefix)
    for entry in document["matrix"] or ():
        for name, value in entry["set"].items():
            pointer = split_pointer(name)
            if pointer in _PATHS:
                entry["set"][name] = _uri(manifest, value)
            elif isinstance(value, dict):
                for section, key in _PATHS:
                    if pointer == (section,) and key in value:
                        value[key] = _uri(manifest, value[key])
    return document


def _uri(manifest: Manifest, text: Any) -> Any:
    """Return the S3 URI of a path; null and local paths are returned unchanged."""
    uri = manifest.uri(text) if isinstance(text, str) else None
    return text if uri is None else str(uri)
