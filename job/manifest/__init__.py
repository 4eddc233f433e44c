"""The manifest: read, validated once, and turned into frozen records."""

from job.manifest.load import Manifest, entries, load, parse

__all__ = ["Manifest", "entries", "load", "parse"]
