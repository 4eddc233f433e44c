"""Being asked to stop: SIGTERM from a scheduler, Ctrl-C from a person, SIGHUP from a terminal.

A limit on the job's time is kept by the same means: SIGALRM comes when it is over.
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
    "Run the same command again: finished stages are reused, the others go on from their last "
    "checkpoint."
)


def stopped(signum: int, during: str = "") -> JobError:
    """Return the error that ends a run after a signal.

    Args:
        signum: the signal.
        during: what was at work, such as ``in stage qat``, or empty.
    """
    where = f" {during}" if during else ""
    if signum == signal.SIGALRM:
        return TimeLimitReached(f"the time of run.max_minutes is over{where}", _AGAIN)
    return Stopped(signum, f"stopped by {signal.Signals(signum).name}{where}", _AGAIN)


class StopSignals:
    """Catches stop signals while it is entered, and gives the old handlers back.

    A signal ends the run at once by :class:`Stopped`, except inside :meth:`deferred`, where it is
    only kept in ``received`` for the one who supervises a worker.

    Args:
        limit_seconds: after which the time is over; of several that are entered within each other,
            the outermost counts. None sets no limit.
    """

    def __init__(self, limit_seconds: float | None = None) -> None:
        self.received: list[int] = []
        self._limit_seconds = limit_seconds
        self._sets_limit = False
        self._first_at = 0.0
        self._deferred = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set handlers; elsewhere the caller keeps its own.
        if threading.current_thread() is threading.main_thread():
            for signum in (*_SIGNALS, *((signal.SIGALRM,) if self._limit_seconds else ())):
                if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup stays in force
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
        """Keep signals for the caller to act on."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @property
    def seconds_since(self) -> float:
        """Seconds since the first signal; 0 when none came."""
        return time.monotonic() - self._first_at if self.received else 0.0

    def check(self) -> None:
        """Raise :class:`Stopped`, or :class:`TimeLimitReached`, when a signal was kept."""
        if self.received:
            raise stopped(self.received[0])

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self.received:
            self._first_at = time.monotonic()
        self.received.append(signum)
        if not self._deferred:
            raise stopped(signum)
