"""Writing files so that a reader never sees half of one."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from job.errors import OutputError


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Translate the system's refusal to write to ``path``."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}",
            "Free some space or choose another output.",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, flushed to disk and put at ``path`` by one rename if the block succeeds."""
    # By its suffix, what a kill leaves of it is known for unfinished, and removed.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with output_errors(path):
        file = partial.open("x+b")
    try:
        yield file
        with output_errors(path):
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
    finally:
        # After a failed write, closing tries to write again; the first error is the one to tell.
        with suppress(OSError):
            file.close()
        partial.unlink(missing_ok=True)
