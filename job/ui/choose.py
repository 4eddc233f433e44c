"""Chooses the user interface for a run: bars, plain lines or JSON lines."""

import sys
from typing import TextIO

from job.ui.lines import JsonUi, PlainUi
from job.ui.protocol import Ui


def make_ui(log_format: str, stream: TextIO | None = None) -> Ui:
    """Return the display that fits.

    Args:
        log_format: ``json``, or ``text`` for bars on a terminal and lines elsewhere.
        stream: where it is shown; standard error by default.
    """
    stream = stream or sys.stderr
    if log_format == "json":
        return JsonUi(stream)
    if stream.isatty():
        from job.ui.bars import BarUi  # rich costs a tenth of a second

        return BarUi(stream)
    return PlainUi(stream)
