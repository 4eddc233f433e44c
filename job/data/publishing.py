"""Writing files so that a reader never sees half of one."""

import os
import tempfile
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
    with output_errors(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    file = os.fdopen(descriptor, "w+b")
    try:
        yield file
        with output_errors(path):
            file.flush()
            os.fsync(file.fileno())
            partial.chmod(0o644)
            partial.replace(path)
    finally:
        # After a failed write, closing tries to write again; the first error is the one to tell.
        with suppress(OSError):
            file.close()
        partial.unlink(missing_ok=True)
