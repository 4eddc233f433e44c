"""A few threads that work off a list."""

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def each(action: Callable[[T], None], items: Iterable[T], threads: int) -> None:
    """Call an action for each item, several at a time; returns when all are done.

    After a failure no further item is begun. The threads are daemons, unlike those of
    concurrent.futures, which would keep a process that must end from ending.

    Raises:
        Exception: the first that an action raised.
    """
    waiting: SimpleQueue[T] = SimpleQueue()
    for item in items:
        waiting.put(item)
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            try:
                action(waiting.get_nowait())
            except Empty:
                return
            except BaseException as error:
                failures.append(error)

    workers = [
        threading.Thread(target=work, name=f"transfer-{number}", daemon=True)
        for number in range(min(threads, waiting.qsize()))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]


class Background:
    """Something that is done in a thread, which ends with the process at the latest.

    Args:
        action: what to do; it begins at once.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, name="background", daemon=True)
        self._thread.start()

    def done_within(self, seconds: float) -> bool:
        """Wait, and tell whether it is done.

        Raises:
            Exception: what the action raised.
        """
        self._thread.join(timeout=max(0.0, seconds))
        if self._failures:
            raise self._failures[0]
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self._action()
        except BaseException as error:
            self._failures.append(error)
