"""Turns a JSON manifest into an INT8 vision model and a report on its accuracy and speed."""

__version__ = "0.1.0"
