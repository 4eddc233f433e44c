"""Rate and remaining time of a piece of work."""

import time
from collections import deque

from job.text_format import duration

_RATE_SECONDS = 30.0


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


def speed(per_second: float, unit: str) -> str:
    """Tell how fast work goes on; of slow work how long each takes, and not 0.0 a second."""
    return f"{per_second:,.1f} {unit}/s" if per_second >= 1 else f"{duration(1 / per_second)} each"


def title(stage: str, what: str) -> str:
    """Name a piece of a stage's work, without saying the same word twice."""
    return stage if what == stage else f"{stage} {what}"
