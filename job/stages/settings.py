"""The part of a manifest's settings that can change a stage's output."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

POST = "post"


# Settings that change how fast or how safely a stage works, but not what it leaves.
WITHOUT_EFFECT = ("workers", "checkpoint_seconds")


def settings_of(spec: Any, *without: str) -> Mapping[str, Any]:
    """A record's settings that can change a stage's output."""
    left_out = {*without, *WITHOUT_EFFECT}
    return {key: value for key, value in asdict(spec).items() if key not in left_out}
