"""Rate of a piece of work, and how often to show it."""

import time
from collections import deque

from job.text_format import duration

_RATE_SECONDS = 30.0


class Rate:
    """Rate of one piece of work over the last 30 seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """Add a sample.

        Args:
            now: time in seconds.
            done: finished units at this time.
        """
        if self._samples and done < self._samples[-1][1]:
            self._samples.clear()  # other work with the same name
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] > _RATE_SECONDS:
            self._samples.popleft()

    @property
    def per_second(self) -> float | None:
        """Units per second; None before two samples."""
        if len(self._samples) < 2:
            return None
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first and after > before else None


class Pace:
    """Measures rates, and limits how often progress is shown.

    Args:
        every_seconds: shortest time between two lines of the same work.
    """

    def __init__(self, every_seconds: float) -> None:
        self._every = every_seconds
        self._rates: dict[str, Rate] = {}
        self._shown_at: dict[str, float] = {}

    def due(self, name: str, done: int, total: int) -> bool:
        """Add a sample, and return whether to show it. The last sample is always shown."""
        now = time.monotonic()
        self._rates.setdefault(name, Rate()).add(now, done)
        if done < total and now - self._shown_at.get(name, -self._every) < self._every:
            return False
        self._shown_at[name] = now
        return True

    def forget(self) -> None:
        """Drop all samples, because the next work can have the same name."""
        self._rates.clear()

    def rate(self, name: str) -> float | None:
        """Return units per second of a piece of work, or None."""
        return self._rates[name].per_second


def speed(per_second: float, unit: str) -> str:
    """Return a rate as text, such as ``2.5 images/s``; below 1 as seconds for each unit."""
    return f"{per_second:,.1f} {unit}/s" if per_second >= 1 else f"{duration(1 / per_second)} each"


def title(stage: str, what: str) -> str:
    """Return the name of a piece of a stage's work, without repeating the same word."""
    return stage if what == stage else f"{stage} {what}"
