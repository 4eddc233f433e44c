"""The last word of a run in a container: one line where Kubernetes looks for it.

Kubernetes puts a file at ``/dev/termination-log`` and shows what is in it as the container's
termination message (``kubectl describe pod``). Elsewhere there is no such file and nothing happens.
"""

from contextlib import suppress
from pathlib import Path

LOG = Path("/dev/termination-log")
# Kubernetes cuts off what is longer.
_MAX_BYTES = 4096


def tell(text: str) -> None:
    """Write a text as one line of at most 4096 bytes, if there is a termination log."""
    line = " ".join(text.split()).encode()[:_MAX_BYTES]
    if LOG.is_file():
        # It has been printed as well: a run must not fail for want of this copy.
        with suppress(OSError):
            LOG.write_text(line.decode(errors="ignore"), encoding="utf-8")
