"""Decoding in processes that may die or hang without harm to the job.

Images go out in chunks. Results come back in the order asked for, whatever the number of processes.
When a process dies or is killed for taking too long, a new one takes its place and the images it
was at are tried again one by one, so that only the guilty one is given up.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import numpy as np

from job.data.decoding.worker_process import DecodeTask, Done, Setup, shared_slots
from job.data.sources import BadImage, Outcome, Source
from job.data.transforms import Transform
from job.errors import JobError

TASK_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 120.0
_START_ATTEMPTS = 3
_CHUNK_IMAGES = 16
# Signals first, while imports take their time: the terminal sends Ctrl-C to the whole group, but
# when to stop is the parent's decision.
_START = """
import signal
import sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
from job.data.decoding.worker_process import main
main(sys.argv[1:])
"""


@dataclass(eq=False)
class _Process:
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"
    slots: Any
    started: bool = False
    tasks: deque[DecodeTask] = field(default_factory=deque)
    sent: int = 0
    done: int = 0
    since: float = field(default_factory=time.monotonic)

    def overdue(self, timeout_s: float) -> float | None:
        """When to stop waiting for it, on the monotonic clock; None while it has nothing to do."""
        if not self.started:
            return self.since + _START_TIMEOUT_S
        return self.since + timeout_s if self.tasks else None


class DecodePool:
    """A few decoding processes for one source and one transform; use as a context or close it.

    The processes die with the thread that made them, even if that is killed.

    Args:
        source: uint8 images.
        transform: what is done to each.
        seed: of the augmentation.
        workers: number of processes, at least 1.
        ahead: how many images to decode before they are asked for, about.
        timeout_s: how long the images of one task may take.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        *,
        seed: int,
        workers: int,
        ahead: int,
        timeout_s: float = TASK_TIMEOUT_S,
    ) -> None:
        self._source = source
        self._timeout_s = timeout_s
        slots = max(2, -(-ahead // (_CHUNK_IMAGES * workers)))
        self._chunks_ahead = slots * workers
        shape = (slots, _CHUNK_IMAGES, *transform.size, source.channels)
        self._slot_shape = shape
        self._setup = os.memfd_create("job-decode-setup")
        with os.fdopen(os.dup(self._setup), "wb") as file:
            pickle.dump(Setup(source, transform, seed, shape), file, pickle.HIGHEST_PROTOCOL)
        self._failed_starts = 0
        self._next_chunk = 0
        self._waiting: deque[DecodeTask] = deque()
        self._outcomes: dict[int, list[Outcome | None]] = {}
        self._processes: list[_Process] = []
        for _ in range(workers):
            self._processes.append(self._start())

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the second time, do nothing."""
        for process in self._processes:
            _end(process)
        if self._processes:
            os.close(self._setup)
        self._processes = []

    @property
    def process_ids(self) -> Sequence[int]:
        """The processes that decode at the moment."""
        return [each.process.pid for each in self._processes]

    def decode(self, epoch: int, indices: Sequence[int]) -> Iterator[Outcome]:
        """Decode images, some of them ahead of need.

        Args:
            epoch: for the augmentation.
            indices: numbers in the source.

        Returns:
            For each, in this order, the image or why there is none. A new call ends the one before.

        Raises:
            JobError: processes cannot be started, or the source fails for every image.
        """
        self._waiting.clear()
        self._outcomes = {}
        first = self._next_chunk
        starts = range(0, len(indices), _CHUNK_IMAGES)
        self._next_chunk += len(starts)
        issued = first
        for chunk in range(first, self._next_chunk):
            while issued < min(self._next_chunk, chunk + self._chunks_ahead):
                start = starts[issued - first]
                self._issue(issued, epoch, indices[start : start + _CHUNK_IMAGES])
                issued += 1
            self._send_waiting()
            while any(outcome is None for outcome in self._outcomes[chunk]):
                self._step()
            yield from (outcome for outcome in self._outcomes.pop(chunk) if outcome is not None)

    def _issue(self, chunk: int, epoch: int, indices: Sequence[int]) -> None:
        self._outcomes[chunk] = [None] * len(indices)
        self._waiting.append(DecodeTask(chunk, 0, epoch, tuple(map(int, indices))))

    def _send_waiting(self) -> None:
        while self._waiting:
            free = [
                each
                for each in self._processes
                if each.started and len(each.tasks) < len(each.slots)
            ]
            if not free:
                return
            least_busy = min(free, key=lambda each: len(each.tasks))
            task = self._waiting.popleft()
            if not least_busy.tasks:
                least_busy.since = time.monotonic()
            least_busy.tasks.append(task)
            least_busy.sent += 1
            # If it has died, reading from it tells, and the task is taken back then.
            with suppress(OSError):
                least_busy.connection.send(task)

    def _step(self) -> None:
        """Wait for news from the processes, and act on it."""
        deadlines = [each.overdue(self._timeout_s) for each in self._processes]
        next_deadline = min(
            (deadline for deadline in deadlines if deadline is not None),
            default=time.monotonic() + self._timeout_s,
        )
        timeout_s = max(0.0, next_deadline - time.monotonic())
        ready = wait([each.connection for each in self._processes], timeout_s)
        for each in list(self._processes):
            if each.connection in ready:
                self._receive(each)
            else:
                deadline = each.overdue(self._timeout_s)
                if deadline is not None and deadline <= time.monotonic():
                    each.process.kill()
                    self._replace(each, f"took longer than {self._timeout_s:g} s")
        self._send_waiting()

    def _receive(self, process: _Process) -> None:
        try:
            while process.connection.poll():
                self._note(process, process.connection.recv())
        except (EOFError, OSError, pickle.UnpicklingError):
            process.process.kill()
            self._replace(process, _death(process.process.wait()))

    def _note(self, process: _Process, news: object) -> None:
        process.since = time.monotonic()
        if not isinstance(news, Done):
            process.started = True
            self._failed_starts = 0
            return
        if news.error is not None:
            raise news.error
        task = process.tasks.popleft()
        slot = process.slots[process.done % len(process.slots)]
        process.done += 1
        if task.chunk not in self._outcomes:
            return
        # The process writes to this slot again once it gets another task.
        images = slot[: len(task.indices)].copy()
        outcomes = self._outcomes[task.chunk]
        for place, index in enumerate(task.indices):
            reason = news.bad.get(place)
            outcomes[task.offset + place] = (
                images[place] if reason is None else BadImage.of(self._source, index, reason)
            )

    def _replace(self, process: _Process, reason: str) -> None:
        """Start another process for a dead one, which leaves its tasks."""
        _end(process)
        if not process.started:
            self._failed_starts += 1
            if self._failed_starts >= _START_ATTEMPTS:
                raise JobError(
                    f"decoding processes do not start: the last one {reason}",
                    "The log shows what they said; data.workers 0 decodes without processes.",
                )
        left = [task for task in process.tasks if task.chunk in self._outcomes]
        # Tasks are done in turn, so the oldest is the one that it was at.
        if left and left[0] is process.tasks[0]:
            left[:1] = self._blame(left[0], reason)
        self._waiting.extendleft(reversed(left))
        self._processes[self._processes.index(process)] = self._start()

    def _blame(self, task: DecodeTask, reason: str) -> list[DecodeTask]:
        if task.retry:
            told = f"the process that decoded it {reason}, twice"
            self._outcomes[task.chunk][task.offset] = BadImage.of(
                self._source, task.indices[0], told
            )
            return []
        return [
            replace(task, offset=task.offset + place, indices=(index,), retry=True)
            for place, index in enumerate(task.indices)
        ]

    def _start(self) -> _Process:
        memory = os.memfd_create("job-decode-pixels")
        os.ftruncate(memory, int(np.prod(self._slot_shape)))
        slots = shared_slots(memory, self._slot_shape)
        ours, theirs = Pipe()
        shared = (theirs.fileno(), self._setup, memory)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, *map(str, (os.getpid(), *shared))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=shared,
            )
        finally:
            theirs.close()
            os.close(memory)
        return _Process(process, ours, slots)


def _end(process: _Process) -> None:
    process.connection.close()
    process.process.kill()
    process.process.wait()


def _death(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return "was killed (out of memory?)"
    if exit_code < 0:
        return f"died of {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
