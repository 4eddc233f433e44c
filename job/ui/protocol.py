"""Shows a run while it goes on: bars for a person, lines for a log, JSON for a machine.

All of it goes to standard error; standard output is for results.
"""

import json
import sys
import time
from collections import deque
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from job.errors import JobError
from job.text_format import duration

_LINE_SECONDS = 5.0
_JSON_SECONDS = 1.0
_RATE_SECONDS = 30.0


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


class Rate:
    """Speed of one piece of work over the last half minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Note how much is done at a time in seconds."""
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()  # the same name, begun anew
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] > _RATE_SECONDS:
            self._samples.popleft()

    @property
    def per_second(self) -> float | None:
        """Units a second; None until there are two samples."""
        if len(self._samples) < 2:
            return None
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first and after > before else None


class _Silence:
    """Entering and leaving for displays that keep nothing on the screen."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class _Pace:
    """Measures rates, and drops progress that comes more often than a reader wants."""

    def __init__(self, every_seconds: float) -> None:
        self._every = every_seconds
        self._rates: dict[str, Rate] = {}
        self._shown: dict[str, float] = {}

    def due(self, name: str, done: int, total: int) -> bool:
        """Note progress and tell whether to show it."""
        now = time.monotonic()
        self._rates.setdefault(name, Rate()).add(now, done)
        if done < total and now - self._shown.get(name, -self._every) < self._every:
            return False
        self._shown[name] = now
        return True

    def forget(self) -> None:
        """What comes next is other work, even if it has the same name."""
        self._rates.clear()

    def rate(self, name: str) -> float | None:
        """Return units a second."""
        return self._rates[name].per_second


class JsonUi(_Silence):
    """One JSON object a line."""

    def __init__(self, stream: TextIO, every_seconds: float = _JSON_SECONDS) -> None:
        self._stream = stream
        self._pace = _Pace(every_seconds)

    def model_started(self, model: str, number: int, count: int) -> None:
        """The run of one model of a matrix begins."""
        self._write("model_started", model=model, number=number, count=count)

    def stage_started(self, stage: str, reason: str) -> None:
        """A stage begins, and why it runs."""
        self._pace.forget()
        self._write("stage_started", stage=stage, reason=reason)

    def stage_reused(self, stage: str, reason: str) -> None:
        """A stage's earlier result is taken."""
        self._write("stage_reused", stage=stage, reason=reason)

    def stage_finished(self, stage: str, seconds: float) -> None:
        """A stage's result is published."""
        self._write("stage_finished", stage=stage, seconds=round(seconds, 3))

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        """Work done so far, with its rate and the seconds left."""
        name = f"{stage}/{what}/{unit}"
        if self._pace.due(name, done, total):
            rate = self._pace.rate(name)
            left = (total - done) / rate if rate else None
            self._write(
                "progress",
                stage=stage,
                what=what,
                done=done,
                total=total,
                unit=unit,
                per_second=rate and round(rate, 3),
                seconds_left=left and round(left, 1),
                note=note,
            )

    def message(self, stage: str, text: str, level: str = "info") -> None:
        """One line."""
        self._write("message", stage=stage, level=level, text=text)

    def failed(self, error: JobError) -> None:
        """The run ends with this error."""
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


class PlainUi(_Silence):
    """Lines with a time, for a log."""

    def __init__(self, stream: TextIO, every_seconds: float = _LINE_SECONDS) -> None:
        self._stream = stream
        self._pace = _Pace(every_seconds)

    def model_started(self, model: str, number: int, count: int) -> None:
        """The run of one model of a matrix begins."""
        self._line(f"{model}: model {number} of {count}")

    def stage_started(self, stage: str, reason: str) -> None:
        """A stage begins, and why it runs."""
        self._pace.forget()
        self._line(f"{stage}: runs: {reason}")

    def stage_reused(self, stage: str, reason: str) -> None:
        """A stage's earlier result is taken."""
        self._line(f"{stage}: reused: {reason}")

    def stage_finished(self, stage: str, seconds: float) -> None:
        """A stage's result is published."""
        self._line(f"{stage}: done in {duration(seconds)}")

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        """Work done so far, with its rate and the time left."""
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
        """One line."""
        self._line(_worded(stage, text, level))

    def failed(self, error: JobError) -> None:
        """The run ends with this error."""
        print(f"error: {error}", file=self._stream, flush=True)

    def _line(self, text: str) -> None:
        print(f"{_now()} {text}", file=self._stream, flush=True)


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


def speed(per_second: float, unit: str) -> str:
    """Tell how fast work goes on; of slow work how long each takes, and not 0.0 a second."""
    return f"{per_second:,.1f} {unit}/s" if per_second >= 1 else f"{duration(1 / per_second)} each"


def title(stage: str, what: str) -> str:
    """Name a piece of a stage's work, without saying the same word twice."""
    return stage if what == stage else f"{stage} {what}"


def _worded(stage: str, text: str, level: str) -> str:
    # The engine names its work, which may be the stage's own name.
    told = text.removeprefix(f"{stage}: ")
    return "".join([f"{stage}: " if stage else "", "warning: " if level == "warning" else "", told])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
