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
