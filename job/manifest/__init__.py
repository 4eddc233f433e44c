"""The manifest: read it, validate it once, and turn it into frozen records."""

from job.manifest.load import entries, load, parse
from job.manifest.spec import Manifest

__all__ = ["Manifest", "entries", "load", "parse"]
