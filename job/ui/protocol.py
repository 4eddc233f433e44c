"""The display of a run: progress bars on a terminal, text lines in a log, or JSON for programs.

Everything is written to standard error, because standard output is for results.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from job.errors import JobError


class Ui(Protocol):
    """Shows what happens in a run."""

    def __enter__(self) -> Self:
        """Start the display."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the display and restore the terminal."""
        return

    def model_started(self, model: str, number: int, count: int) -> None:
        """The run of one model of a matrix starts; all later events belong to this model."""

    def stage_started(self, stage: str, reason: str) -> None:
        """A stage starts; ``reason`` states why it runs."""

    def stage_reused(self, stage: str, reason: str) -> None:
        """The earlier result of a stage is reused."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """The result of a stage is published."""

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        """A stage made progress, see :meth:`job.events.Events.progress`."""

    def message(self, stage: str, text: str, level: str = "info") -> None:
        """Show one line; ``stage`` may be empty."""

    def failed(self, error: JobError) -> None:
        """The command fails with this error."""


@dataclass(frozen=True)
class StageEvents:
    """Shows the events of one stage; implements :class:`job.events.Events`.

    Attributes:
        ui: the display.
        stage: the name that each event is shown with.
        stopping: never set, because a signal ends work in this process by an exception.
    """

    ui: Ui
    stage: str
    stopping: bool = False

    def progress(self, what: str, done: int, total: int, unit: str, note: str = "") -> None:
        """Show progress."""
        self.ui.progress(self.stage, what, done, total, unit, note)

    def message(self, text: str, level: str = "info") -> None:
        """Show one line."""
        self.ui.message(self.stage, text, level)

    def warn(self, text: str) -> None:
        """Show one warning."""
        self.message(text, "warning")

    def show(self, event: Mapping[str, Any]) -> None:
        """Show an event that another process sent as a JSON object."""
        values = {name: value for name, value in event.items() if name != "event"}
        if event["event"] == "progress":
            self.progress(**values)
        else:
            self.message(**values)
