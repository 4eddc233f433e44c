"""Reads a manifest, validates it once, and converts it to frozen dataclasses."""

from job.manifest.load import entries, load, parse
from job.manifest.spec import Manifest

__all__ = ["Manifest", "entries", "load", "parse"]
