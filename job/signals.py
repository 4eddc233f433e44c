"""Being asked to stop: SIGTERM from a scheduler, Ctrl-C from a person, SIGHUP from a terminal."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from job.errors import Stopped

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stopped(signum: int, where: str = "") -> Stopped:
    """Return the error that ends a run after a signal.

    Args:
        signum: the signal.
        where: the stage that was at work, or empty.
    """
    name = signal.Signals(signum).name
    during = f" in stage {where}" if where else ""
    return Stopped(
        signum,
        f"stopped by {name}{during}",
        "Run the same command again: finished stages are reused, the others go on from their "
        "last checkpoint.",
    )


class StopSignals:
    """Catches stop signals while it is entered, and gives the old handlers back.

    A signal ends the run at once by :class:`Stopped`, except inside :meth:`deferred`, where it is
    only kept in ``received`` for the one who supervises a worker.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._deferred = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set handlers; elsewhere the caller keeps its own.
        if threading.current_thread() is threading.main_thread():
            for signum in _SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup stays in force
                    self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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

    def check(self) -> None:
        """Raise :class:`Stopped` when a signal was kept."""
        if self.received:
            raise stopped(self.received[0])

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received.append(signum)
        if not self._deferred:
            raise stopped(signum)
