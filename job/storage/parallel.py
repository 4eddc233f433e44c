"""Threads that process a list or run in the background."""

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def each(action: Callable[[T], None], items: Iterable[T], threads: int) -> None:
    """Call an action for each item in several threads, and return when all calls are done.

    After the first failure no further call starts. The threads are daemon threads, because threads
    of concurrent.futures would delay the exit of a process that must stop.

    Args:
        action: called with one item.
        items: the items.
        threads: how many threads to use at most.

    Raises:
        Exception: the first exception of an action.
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
    """An action that runs in a daemon thread.

    Args:
        action: the action; it starts immediately.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, name="background", daemon=True)
        self._thread.start()

    def done_within(self, seconds: float) -> bool:
        """Wait up to ``seconds`` and return whether the action is done.

        Raises:
            Exception: the exception of the action.
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
