"""Decode images in worker processes, which may crash or hang without stopping the job.

Images are sent in chunks. The order of the results does not depend on the number of processes. If a
process crashes, or is killed after its timeout, a new process replaces it. The images of its
current task are decoded again one by one, so that only the image that caused the crash is skipped.
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
from job.data.sources import BadImage, LabelledImage, Outcome, Source
from job.data.transforms import Transform
from job.errors import JobError

TASK_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 120.0
_START_ATTEMPTS = 3
_CHUNK_IMAGES = 16
# Signals are ignored before the slow imports. The terminal sends Ctrl-C to the whole process group,
# but the parent decides when to stop.
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
        """Return its deadline on the monotonic clock; None if it has no task."""
        if not self.started:
            return self.since + _START_TIMEOUT_S
        return self.since + timeout_s if self.tasks else None


class DecodePool:
    """Decoding processes for one source and one transform; a context manager.

    The kernel kills the processes when the thread that created them ends, even by SIGKILL.

    Args:
        source: uint8 images.
        transform: applied to each image.
        seed: random seed of the augmentation.
        workers: number of processes, at least 1.
        ahead: approximate number of images to decode before they are requested.
        timeout_s: timeout of one task in seconds.
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
        """Kill the processes; a second call does nothing."""
        for process in self._processes:
            _end(process)
        if self._processes:
            os.close(self._setup)
        self._processes = []

    @property
    def process_ids(self) -> Sequence[int]:
        """The process ids of the current processes."""
        return [each.process.pid for each in self._processes]

    def decode(self, epoch: int, indices: Sequence[int]) -> Iterator[Outcome]:
        """Yield decoded images in the order of ``indices``.

        A new call ends the iteration of the call before.

        Args:
            epoch: epoch of the augmentation.
            indices: numbers of the images in the source.

        Yields:
            The image, uint8 ``[height, width, channels]``, with its objects if the source has
            objects, or a BadImage with the reason.

        Raises:
            JobError: the processes cannot be started, or the source fails for every image.
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
            # If the process has ended, _receive() detects this and sends the task to another
            # process.
            with suppress(OSError):
                least_busy.connection.send(task)

    def _step(self) -> None:
        """Wait for messages of the processes, or for a deadline, and handle them."""
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
                self._handle(process, process.connection.recv())
        except (EOFError, OSError, pickle.UnpicklingError):
            process.process.kill()
            self._replace(process, _death(process.process.wait()))

    def _handle(self, process: _Process, message: object) -> None:
        process.since = time.monotonic()
        if not isinstance(message, Done):
            process.started = True
            self._failed_starts = 0
            return
        if message.error is not None:
            raise message.error
        task = process.tasks.popleft()
        slot = process.slots[process.done % len(process.slots)]
        process.done += 1
        if task.chunk not in self._outcomes:
            return
        # The process reuses this slot for another task.
        images = slot[: len(task.indices)].copy()
        outcomes = self._outcomes[task.chunk]
        for place, index in enumerate(task.indices):
            reason = message.bad.get(place)
            outcome: Outcome = images[place]
            if reason is not None:
                outcome = BadImage.of(self._source, index, reason)
            elif place in message.objects:
                outcome = LabelledImage(images[place], message.objects[place])
            outcomes[task.offset + place] = outcome

    def _replace(self, process: _Process, reason: str) -> None:
        """Start a new process, and send it the tasks of the process that has ended."""
        _end(process)
        if not process.started:
            self._failed_starts += 1
            if self._failed_starts >= _START_ATTEMPTS:
                raise JobError(
                    f"decoding processes failed to start {self._failed_starts} times; the last one "
                    f"{reason}",
                    "Read the error messages of these processes in the log of the stage. If memory "
                    "ran out, lower data.workers.",
                )
        open_tasks = [task for task in process.tasks if task.chunk in self._outcomes]
        # Tasks are processed in order, so the process ended during the oldest task.
        if open_tasks and open_tasks[0] is process.tasks[0]:
            open_tasks[:1] = self._split(open_tasks[0], reason)
        self._waiting.extendleft(reversed(open_tasks))
        self._processes[self._processes.index(process)] = self._start()

    def _split(self, task: DecodeTask, reason: str) -> list[DecodeTask]:
        """Return a task for each image; an image that was already tried alone is a bad image."""
        if task.retry:
            self._outcomes[task.chunk][task.offset] = BadImage.of(
                self._source, task.indices[0], f"the decoding process {reason}, twice"
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
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"exited with code {exit_code}"
