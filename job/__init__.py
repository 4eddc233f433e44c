"""From a manifest to a measured INT8 vision model."""

__version__ = "0.1.0"
