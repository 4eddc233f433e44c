"""Builds an INT8 vision model from a JSON manifest, and reports its accuracy and speed."""

__version__ = "0.1.0"
