"""Progress as text lines or JSON lines, for logs."""

import json
from datetime import UTC, datetime
from typing import Any, TextIO

from job.errors import JobError
from job.text_format import duration
from job.ui.protocol import Ui
from job.ui.rate import Pace, speed, title

# Shortest time between two lines of the same work.
_TEXT_SECONDS = 5.0
_JSON_SECONDS = 1.0


class JsonUi(Ui):
    """One JSON object per line."""

    def __init__(self, stream: TextIO, every_seconds: float = _JSON_SECONDS) -> None:
        self._stream = stream
        self._pace = Pace(every_seconds)

    def model_started(self, model: str, number: int, count: int) -> None:
        """Write that the run of one model of a matrix starts."""
        self._write("model_started", model=model, number=number, count=count)

    def stage_started(self, stage: str, reason: str) -> None:
        """Write that a stage starts, and why."""
        self._pace.forget()
        self._write("stage_started", stage=stage, reason=reason)

    def stage_reused(self, stage: str, reason: str) -> None:
        """Write that the earlier result of a stage is reused."""
        self._write("stage_reused", stage=stage, reason=reason)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Write that a stage is finished."""
        self._write("stage_finished", stage=stage, seconds=round(seconds, 3))

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        """Write progress with its rate and the remaining seconds, at most once a second."""
        name = f"{stage}/{what}/{unit}"
        if self._pace.due(name, done, total):
            rate = self._pace.rate(name)
            seconds_left = (total - done) / rate if rate else None
            self._write(
                "progress",
                stage=stage,
                what=what,
                done=done,
                total=total,
                unit=unit,
                per_second=rate and round(rate, 3),
                seconds_left=seconds_left and round(seconds_left, 1),
                note=note,
            )

    def message(self, stage: str, text: str, level: str = "info") -> None:
        """Write one line."""
        self._write("message", stage=stage, level=level, text=text)

    def failed(self, error: JobError) -> None:
        """Write the error that ends the command."""
        self._write(
            "error",
            kind=type(error).__name__,
            exit_code=error.exit_code,
            text=error.message,
            hint=error.hint,
        )

    def _write(self, event: str, **values: Any) -> None:
        line = {"time": _now(), "event": event, **values}
        print(json.dumps(line, ensure_ascii=False), file=self._stream, flush=True)


class PlainUi(Ui):
    """Text lines with a time, for a log."""

    def __init__(self, stream: TextIO, every_seconds: float = _TEXT_SECONDS) -> None:
        self._stream = stream
        self._pace = Pace(every_seconds)

    def model_started(self, model: str, number: int, count: int) -> None:
        """Write that the run of one model of a matrix starts."""
        self._line(f"{model}: model {number} of {count}")

    def stage_started(self, stage: str, reason: str) -> None:
        """Write that a stage starts, and why."""
        self._pace.forget()
        self._line(f"{stage}: runs: {reason}")

    def stage_reused(self, stage: str, reason: str) -> None:
        """Write that the earlier result of a stage is reused."""
        self._line(f"{stage}: reused: {reason}")

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Write that a stage is finished."""
        self._line(f"{stage}: done in {duration(seconds)}")

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        """Write progress with its rate and the remaining time, at most once in 5 seconds."""
        name = f"{stage}/{what}/{unit}"
        if self._pace.due(name, done, total):
            parts = [f"{title(stage, what)}: {done:,}/{total:,} {unit}"]
            rate = self._pace.rate(name)
            if rate:
                parts.append(speed(rate, unit))
                if done < total:
                    parts.append(f"{duration((total - done) / rate)} left")
            self._line(", ".join([*parts, note] if note else parts))

    def message(self, stage: str, text: str, level: str = "info") -> None:
        """Write one line."""
        self._line(_message(stage, text, level))

    def failed(self, error: JobError) -> None:
        """Write the error that ends the command."""
        print(f"error: {error}", file=self._stream, flush=True)

    def _line(self, text: str) -> None:
        print(f"{_now()} {text}", file=self._stream, flush=True)


def _message(stage: str, text: str, level: str) -> str:
    prefix = f"{stage}: " if stage else ""
    warning = "warning: " if level == "warning" else ""
    # The engine starts a message with the name of its work, which may be the stage's name.
    return f"{prefix}{warning}{text.removeprefix(prefix)}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
