"""Handles the stop signals SIGTERM (scheduler), SIGINT (Ctrl-C) and SIGHUP (terminal).

SIGALRM enforces the time limit of the run.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from job.errors import JobError, Stopped, TimeLimitReached

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TIMER = signal.ITIMER_REAL
_AGAIN = (
    "Run the same command again: finished stages are reused, unfinished stages resume from their "
    "last checkpoint."
)


def stopped(signum: int, during: str = "") -> JobError:
    """Return the error that ends a run after a signal.

    Args:
        signum: the signal.
        during: the work that was stopped, such as ``in stage qat``, or empty.
    """
    where = f" {during}" if during else ""
    if signum == signal.SIGALRM:
        return TimeLimitReached(f"reached the time limit run.max_minutes{where}", _AGAIN)
    return Stopped(signum, f"stopped by {signal.Signals(signum).name}{where}", _AGAIN)


class StopSignals:
    """A context that catches stop signals and restores the previous handlers at its end.

    A signal raises :class:`Stopped` or :class:`TimeLimitReached`. Inside :meth:`deferred` it is
    only added to ``received``, for the code that supervises a child process.

    Args:
        limit_seconds: time limit. If contexts are nested, only the outermost limit applies. None
            sets no limit.

    Attributes:
        received: numbers of the received signals, in order.
    """

    def __init__(self, limit_seconds: float | None = None) -> None:
        self.received: list[int] = []
        self._limit_seconds = limit_seconds
        self._sets_limit = False
        self._first_at = 0.0
        self._deferred = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python allows only the main thread to set handlers.
        if threading.current_thread() is threading.main_thread():
            for signum in (*_SIGNALS, *((signal.SIGALRM,) if self._limit_seconds else ())):
                if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup must stay in effect.
                    self._before[signum] = signal.signal(signum, self._handle)
            self._sets_limit = bool(self._limit_seconds) and not signal.getitimer(_TIMER)[0]
            if self._limit_seconds and self._sets_limit:
                signal.setitimer(_TIMER, self._limit_seconds)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sets_limit:
            signal.setitimer(_TIMER, 0)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before.clear()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only collect signals; the caller reacts to them."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @property
    def seconds_since(self) -> float:
        """Seconds since the first signal; 0 if none was received."""
        return time.monotonic() - self._first_at if self.received else 0.0

    def check(self) -> None:
        """Raise :class:`Stopped` or :class:`TimeLimitReached` if a signal was received."""
        if self.received:
            raise stopped(self.received[0])

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self.received:
            self._first_at = time.monotonic()
        self.received.append(signum)
        if not self._deferred:
            raise stopped(signum)
