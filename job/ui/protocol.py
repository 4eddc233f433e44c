"""Shows a run while it goes on: bars for a person, lines for a log, JSON for a machine.

All of it goes to standard error; standard output is for results.
"""

from types import TracebackType
from typing import Protocol, Self

from job.errors import JobError


class Ui(Protocol):
    """Receiver of a run's news."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the screen in order."""

    def model_started(self, model: str, number: int, count: int) -> None:
        """The run of one model of a matrix begins; all that follows is of it."""

    def stage_started(self, stage: str, reason: str) -> None:
        """A stage begins, and why it runs."""

    def stage_reused(self, stage: str, reason: str) -> None:
        """A stage's earlier result is taken."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """A stage's result is published."""

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        """Work done so far, as in :meth:`job.events.Events.progress`."""

    def message(self, stage: str, text: str, level: str = "info") -> None:
        """One line; ``stage`` may be empty."""

    def failed(self, error: JobError) -> None:
        """The run ends with this error."""
