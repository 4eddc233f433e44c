"""What a stage tells while it works: progress, messages, nothing else."""

from typing import Protocol


class Events(Protocol):
    """Receiver of a stage's news; in a worker process it writes JSON lines to the parent."""

    def progress(self, what: str, done: int, total: int, unit: str, note: str = "") -> None:
        """Report work done so far.

        Args:
            what: name of the work, such as ``qat`` or ``benchmark``.
            done: units finished, of ``total``.
            total: units in all.
            unit: plural noun, such as ``images``, ``steps``, ``rounds``.
            note: short state, such as ``loss 0.31``.
        """

    def message(self, text: str, level: str = "info") -> None:
        """Say one line; ``level`` is ``info`` or ``warning``."""

    @property
    def stopping(self) -> bool:
        """True once the job was asked to stop; long work then saves its state and returns."""
