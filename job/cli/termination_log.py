"""The termination message of a container: the last message of a run.

Kubernetes creates ``/dev/termination-log`` and shows its content as the container's termination
message (``kubectl describe pod``). If the file does not exist, nothing is written.
"""

from contextlib import suppress
from pathlib import Path

LOG = Path("/dev/termination-log")
# Kubernetes truncates longer messages.
_MAX_BYTES = 4096


def write(text: str) -> None:
    """Write a text as one line of at most 4096 bytes, if the termination log exists."""
    line = " ".join(text.split()).encode(errors="backslashreplace")[:_MAX_BYTES]
    if LOG.is_file():
        # The text is also printed, so a run must not fail because of this copy.
        with suppress(OSError):
            LOG.write_text(line.decode(errors="ignore"), encoding="utf-8")
