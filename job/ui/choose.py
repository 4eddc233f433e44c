"""Chooses the display: bars, text lines or JSON lines."""

import sys
from typing import TextIO

from job.ui.lines import JsonUi, PlainUi
from job.ui.protocol import Ui


def make_ui(log_format: str, stream: TextIO | None = None) -> Ui:
    """Return the display for a log format and a stream.

    Args:
        log_format: ``json``, or ``text``: bars on a terminal, lines elsewhere.
        stream: the stream to write to; None for standard error.
    """
    stream = stream or sys.stderr
    if log_format == "json":
        return JsonUi(stream)
    if stream.isatty():
        from job.ui.bars import BarUi  # importing rich takes 0.1 s

        return BarUi(stream)
    return PlainUi(stream)
