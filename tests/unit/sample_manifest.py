"""A small manifest for tests, and helpers that validate it."""

import copy
from pathlib import Path
from typing import Any

import pytest

from job.errors import Fault, ManifestError
from job.manifest import Manifest, parse

MINIMAL: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "model": {"name": "convnet", "classes": 10, "input_shape": [3, 32, 32]},
    "data": {"format": "class_folders", "train_dir": "train"},
}


def document(**changes: Any) -> dict[str, Any]:
    """Return the smallest manifest, changed by arguments such as ``model__width=2``."""
    out = copy.deepcopy(MINIMAL)
    for place, value in changes.items():
        *parents, last = place.split("__")
        node = out
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return out


def check(body: Any, *overrides: str) -> Manifest:
    return parse(body, "test.json", Path("/base"), overrides)


def faults(body: Any, *overrides: str) -> dict[str, Fault]:
    with pytest.raises(ManifestError, match=r"^test\.json: \d+ fault") as caught:
        check(body, *overrides)
    return {fault.pointer: fault for fault in caught.value.faults}
