"""The processes that train one model together, and their synchronization.

On CPU, Paddle's distributed API (3.2) does not work with static programs. This module uses the
parts that work: a TCP store for rendezvous, gloo's communicator, and the op ``all_reduce``. Rank 0
builds the training program and sends it to the other ranks, so that all ranks run the ops in the
same order.
"""

import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from paddle import static
from paddle.base import core
from paddle.static import Program

from job.engine.training.programs import cpu, read_variables, write_variables
from job.errors import DataError, PeerLost

RING = 0
# The whole message of Paddle's executor when a collective operation of gloo fails.
GLOO_FAILED = "std::exception"
_POLL_SECONDS = 0.001
# The store needs no short timeout, because the supervising processes detect a lost process.
_STORE_SECONDS = 7 * 24 * 3600


Membership = tuple[int, int, str, int]
"""Rank, number of processes, and the host and port where rank 0's store listens."""


class SingleProcess:
    """A training in one process; the base class of :class:`ProcessGroup`."""

    rank, size = 0, 1

    def share(self, values: np.ndarray) -> np.ndarray:
        """Return this process's share of a batch."""
        return values

    def meet(self) -> None:
        """Wait for all other processes."""

    def agree(self, stopping: bool) -> bool:
        """Return whether any process is stopping."""
        return stopping

    def seed(self, seed: int, step: int) -> int:
        """Return the random seed of a step; it differs in each process."""
        return (seed * 1_000_003 + step) * self.size + self.rank

    def guarded(self) -> AbstractContextManager[None]:
        """Return the context for running ops that communicate with other processes."""
        return nullcontext()

    def lead(
        self, scope: static.Scope, program: Program, plan: "Plan", names: Sequence[str]
    ) -> None:
        """Send the program, the state and the plan to the other processes."""

    def leave(self) -> None:
        """Wait until no other process needs this process."""


@dataclass(frozen=True)
class Plan:
    """Values that must be equal in all processes of a training.

    Attributes:
        step: number of steps already done.
        total_steps: number of steps of the whole training.
        steps_per_epoch: batches per epoch.
        data: identifies the training images and their labels.
        loss: name of the loss variable.
        learning_rate: name of the learning rate's variable.
        feeds: inputs of the loss, in the order of a batch's targets.
    """

    step: int
    total_steps: int
    steps_per_epoch: int
    data: str
    loss: str
    learning_rate: str
    feeds: tuple[str, ...]


class ProcessGroup(SingleProcess):
    """Connection of one process to the other processes of a training.

    Args:
        rank: rank of this process, from 0.
        size: number of processes.
        host: host of rank 0's store.
        port: TCP port of rank 0's store.

    Raises:
        PeerLost: the connection to another process was lost.
    """

    def __init__(self, rank: int, size: int, host: str, port: int) -> None:
        self.rank, self.size = rank, size
        self._meetings = 0
        self._due = [0, 0]
        with store_errors():
            self._store = core.TCPStore(host, port, rank == 0, size, _STORE_SECONDS)
            core.CommContextManager.create_gloo_comm_context(self._store, str(RING), rank, size)

    def share(self, values: np.ndarray) -> np.ndarray:
        """Return every ``size``-th value of a batch, beginning at this process's rank.

        Raises:
            DataError: the batch size is not a multiple of the number of processes.
        """
        if len(values) % self.size:
            raise DataError(
                f"a batch of {len(values)} training images cannot be divided equally among "
                f"{self.size} processes",
                "Lower train.batch_size to a multiple of the number of processes that is at most "
                "the number of training images, or start one process.",
            )
        return np.ascontiguousarray(values[self.rank :: self.size])

    def meet(self) -> None:
        """Wait for all other processes.

        gloo times out a collective operation after half a minute. Another process may need longer
        to evaluate, save or read images. This function waits without that timeout.
        """
        self.agree(False)

    def agree(self, stopping: bool) -> bool:
        """Wait for all other processes, and return whether any process is stopping.

        Args:
            stopping: whether this process is stopping.
        """
        # Two sets of counters alternate, because no process can be two meetings ahead of another.
        turn = self._meetings % 2
        self._meetings += 1
        self._due[turn] += self.size
        with store_errors():
            if stopping:
                self._store.add(f"stop/{turn}", 1)
            self._store.add(f"here/{turn}", 1)
            while self._store.add(f"here/{turn}", 0) < self._due[turn]:
                time.sleep(_POLL_SECONDS)
            return self._store.add(f"stop/{turn}", 0) > 0

    def guarded(self) -> AbstractContextManager[None]:
        """Return the context that translates gloo's failures to ``PeerLost``."""
        return gloo_errors()

    def lead(self, scope: static.Scope, program: Program, plan: Plan, names: Sequence[str]) -> None:
        """Send the program, the plan and the variables ``names`` to the other processes."""
        values = read_variables(scope, names)
        state = {name: (value.shape, str(value.dtype)) for name, value in values.items()}
        header = json.dumps({"plan": vars(plan), "state": state}).encode()
        with store_errors():
            self._store.set("header", header)
            self._store.set("program", program.desc.serialize_to_string())
        self.spread(scope, state)

    def follow(self, scope: static.Scope) -> tuple[Program, Plan]:
        """Receive rank 0's program and plan, and write its variables to ``scope``."""
        with store_errors():
            header, program = json.loads(self._store.get("header")), self._store.get("program")
        for name, (shape, dtype) in header["state"].items():
            write_variables(scope, {name: np.zeros(shape, dtype)})
        self.spread(scope, header["state"])
        return Program.parse_from_string(program), Plan(
            **{**header["plan"], "feeds": tuple(header["plan"]["feeds"])}
        )

    def spread(self, scope: static.Scope, state: dict[str, Any]) -> None:
        """Broadcast variables from rank 0 to all processes.

        Args:
            scope: contains the variables.
            state: name -> (shape, dtype).
        """
        program = Program()
        block = program.global_block()
        for name, (shape, dtype) in sorted(state.items()):
            block.create_var(name=name, shape=shape, dtype=dtype, persistable=True)
            block.append_op(
                type="broadcast",
                inputs={"x": [name]},
                outputs={"out": [name]},
                attrs={"ring_id": RING, "root": 0},
            )
        self.meet()
        with static.scope_guard(scope), self.guarded():
            static.Executor(cpu()).run(program)

    def leave(self) -> None:
        """Wait, as rank 0, until all processes are done, because the store runs in rank 0."""
        with store_errors():
            self._store.add("done", 1)
            while self.rank == 0 and self._store.add("done", 0) < self.size:
                time.sleep(_POLL_SECONDS)


@contextmanager
def store_errors() -> Iterator[None]:
    """Translate any failure of the store, and block SIGTERM during the block.

    Without the signal mask, a signal would interrupt the calls of the store and its thread. The
    thread inherits the mask.

    Raises:
        PeerLost: the store failed; the message contains the store's error.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise lost(error) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def gloo_errors() -> Iterator[None]:
    """Translate gloo's failures, which Paddle reports without a reason.

    Raises:
        PeerLost: a collective operation failed.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error).strip() != GLOO_FAILED:
            raise
        raise lost(error) from error


def lost(error: Exception) -> PeerLost:
    """Return the ``PeerLost`` error for a failure of the store or of gloo."""
    last = str(error).strip().splitlines()[-1:]
    return PeerLost(
        f"lost the connection to another process of the training: {''.join(last)}",
        "Run the same command again: it resumes from the last checkpoint.",
    )
