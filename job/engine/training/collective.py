"""The processes that train one model, and how they meet.

On CPU, Paddle's distributed API does not work on static programs (3.2), but what it is made of
does: a TCP store to meet at, gloo's communicator, and the op ``all_reduce`` in a program. Rank 0
makes the training program and sends it to the others: the ops of all stand in the same order.
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
# All that Paddle's executor says when a collective operation of gloo's fails.
GLOO_FAILED = "std::exception"
_POLL_SECONDS = 0.001
# Those who supervise the processes notice a loss at once; a store need not give up by itself.
_STORE_SECONDS = 7 * 24 * 3600


Location = tuple[int, int, str, int]
"""Rank, number of processes, and the host and port where rank 0's store listens."""


class SingleProcess:
    """The one process of a training that is not shared."""

    rank, size = 0, 1

    def share(self, values: np.ndarray) -> np.ndarray:
        """Return this process's part of a batch."""
        return values

    def meet(self) -> None:
        """Wait for all others."""

    def agree(self, asked: bool) -> bool:
        """Return whether any process was asked to stop."""
        return asked

    def seed(self, seed: int, step: int) -> int:
        """Return the seed of a step's draws, another one in each process."""
        return (seed * 1_000_003 + step) * self.size + self.rank

    def guarded(self) -> AbstractContextManager[None]:
        """Return the context that an op that reaches for others runs in."""
        return nullcontext()

    def lead(
        self, scope: static.Scope, program: Program, plan: "Plan", names: Sequence[str]
    ) -> None:
        """Give the others the program, the state and the plan."""

    def leave(self) -> None:
        """Wait until no other process needs this one."""


@dataclass(frozen=True)
class Plan:
    """What all processes of a training must agree on.

    Attributes:
        step: steps that are done already.
        total_steps: steps in all.
        steps_per_epoch: batches of an epoch.
        data: identifies the training images and their labels.
        loss: name of the loss to fetch.
        learning_rate: name of the learning rate's variable.
    """

    step: int
    total_steps: int
    steps_per_epoch: int
    data: str
    loss: str
    learning_rate: str


class ProcessGroup(SingleProcess):
    """All processes of a training, seen from one of them.

    Args:
        rank: the number of this process; 0 leads.
        size: how many there are.
        host: where rank 0's store listens.
        port: where rank 0's store listens.

    Raises:
        PeerLost: another one is gone.
    """

    def __init__(self, rank: int, size: int, host: str, port: int) -> None:
        self.rank, self.size = rank, size
        self._meetings = 0
        self._due = [0, 0]
        with store_errors():
            self._store = core.TCPStore(host, port, rank == 0, size, _STORE_SECONDS)
            core.CommContextManager.create_gloo_comm_context(self._store, str(RING), rank, size)

    def share(self, values: np.ndarray) -> np.ndarray:
        """Return every ``size``-th value of a batch, beginning with this process's.

        Raises:
            DataError: the batch cannot be shared equally.
        """
        if len(values) % self.size:
            raise DataError(
                f"{len(values)} training images are less than a batch, and {self.size} processes "
                "cannot share them equally",
                "Lower train.batch_size, or start one process.",
            )
        return np.ascontiguousarray(values[self.rank :: self.size])

    def meet(self) -> None:
        """Wait for all others; whoever must wait long does so here.

        gloo gives up a collective operation after half a minute, in which another process may
        still evaluate, save or read images.
        """
        self.agree(False)

    def agree(self, asked: bool) -> bool:
        """Wait for all others, and return whether any was asked to stop.

        Args:
            asked: whether this one was.
        """
        # Two sets of counters take turns: nobody can be two meetings ahead of the slowest.
        turn = self._meetings % 2
        self._meetings += 1
        self._due[turn] += self.size
        with store_errors():
            if asked:
                self._store.add(f"stop/{turn}", 1)
            self._store.add(f"here/{turn}", 1)
            while self._store.add(f"here/{turn}", 0) < self._due[turn]:
                time.sleep(_POLL_SECONDS)
            return self._store.add(f"stop/{turn}", 0) > 0

    def guarded(self) -> AbstractContextManager[None]:
        """Return the context in which gloo's failures become the loss of a process."""
        return gloo_errors()

    def lead(self, scope: static.Scope, program: Program, plan: Plan, names: Sequence[str]) -> None:
        """Give the others the program, the plan and the state of ``names``."""
        values = read_variables(scope, names)
        state = {name: (value.shape, str(value.dtype)) for name, value in values.items()}
        told = json.dumps({"plan": vars(plan), "state": state}).encode()
        with store_errors():
            self._store.set("told", told)
            self._store.set("program", program.desc.serialize_to_string())
        self.spread(scope, state)

    def follow(self, scope: static.Scope) -> tuple[Program, Plan]:
        """Return what rank 0 leads with; the state is in ``scope``."""
        with store_errors():
            told, made = json.loads(self._store.get("told")), self._store.get("program")
        for name, (shape, dtype) in told["state"].items():
            write_variables(scope, {name: np.zeros(shape, dtype)})
        self.spread(scope, told["state"])
        return Program.parse_from_string(made), Plan(**told["plan"])

    def spread(self, scope: static.Scope, state: dict[str, Any]) -> None:
        """Give variables of every process the values that they have in rank 0."""
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
        """Wait until no other process needs this one: rank 0 holds the store."""
        with store_errors():
            self._store.add("gone", 1)
            while self.rank == 0 and self._store.add("gone", 0) < self.size:
                time.sleep(_POLL_SECONDS)


@contextmanager
def store_errors() -> Iterator[None]:
    """Take any failure of the store for the loss of a process, and let no signal be one.

    A signal would break off the store's calls, and its thread, which is begun with this mask.

    Raises:
        PeerLost: naming what failed.
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
    """Take gloo's failures, of which Paddle tells nothing, for the loss of a process.

    Raises:
        PeerLost: naming what failed.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error).strip() != GLOO_FAILED:
            raise
        raise lost(error) from error


def lost(error: Exception) -> PeerLost:
    """Return the loss of another process that an error is a sign of."""
    last = str(error).strip().splitlines()[-1:]
    return PeerLost(
        f"another process of the training is gone: {''.join(last)}",
        "Run the same command again: it goes on from the last checkpoint.",
    )
