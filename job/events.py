"""Events that a stage sends while it works: progress and messages."""

from collections.abc import Callable
from typing import Protocol

# Receives status messages. Used where no progress is sent and no stage has a name.
Say = Callable[[str], None]


class Events(Protocol):
    """Receives the events of one stage. In a stage's process it sends JSON lines to the parent."""

    def progress(self, what: str, done: int, total: int, unit: str, note: str = "") -> None:
        """Report progress.

        Args:
            what: name of the work, such as ``qat`` or ``benchmark``.
            done: finished units, of ``total``.
            total: total number of units.
            unit: plural noun, such as ``images``, ``steps``, ``rounds``.
            note: short status, such as ``loss 0.31``.
        """

    def message(self, text: str, level: str = "info") -> None:
        """Report one line; ``level`` is ``info`` or ``warning``."""

    @property
    def stopping(self) -> bool:
        """Whether a stop signal was received. A long stage then saves its state and returns."""
