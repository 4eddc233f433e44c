"""Connections between rank 0 and the others, one each, as long as the processes live.

On them rank 0 says when training begins and how the run ended. That a connection breaks tells each
side at once that the other is gone: a process that waits inside a collective operation would not
notice for long, and is ended by the one that supervises it.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from job.distributed.connection import SECONDS, JsonConnection
from job.distributed.group import Group, Rendezvous, check_shared, group_of, identity
from job.errors import DONE, INTERNAL, JobError, LeaderEnded, MachineError, PeerLost, UsageError
from job.manifest import Manifest

# Until all processes have found each other: their nodes may be scheduled one after another.
GATHERING_SECONDS = 300.0
# A process that saw another fail waits so long for the reason, which comes on the connection.
REASON_SECONDS = 10.0
_RETRY_SECONDS = 0.2
_AGAIN = "Run the same command again: it goes on from the last checkpoint."


class Coordinator:
    """Rank 0's side: listens while it is entered, and says how the run ended when it is left.

    ``failure`` may be set to what a run fails with although it went through.

    Args:
        group: whose rank 0 this process is.
        common: what all must have in common, see :func:`job.distributed.group.identity`.

    Raises:
        MachineError: nothing can listen at the endpoint.
    """

    def __init__(self, group: Group, common: str) -> None:
        self.group = group
        self._common = common
        self.failure: JobError | None = None
        self._strangers: list[JsonConnection] = []
        self._lines: dict[int, JsonConnection] = {}
        self._reasons: dict[int, str] = {}
        try:
            self._server = socket.create_server((group.host, group.port))
        except OSError as error:
            raise MachineError(
                f"rank 0 cannot listen at its endpoint {group.host}:{group.port}: {error}",
                "The endpoints of PADDLE_TRAINER_ENDPOINTS must be free ports of the machines.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ended = error or self.failure
        code, told = DONE, ""
        if isinstance(ended, JobError):
            code, told = ended.exit_code, ended.message
        elif ended is not None:
            code, told = INTERNAL, repr(ended)
        with suppress(JobError):
            self.attend()
        for line in (*self._lines.values(), *self._strangers):
            line.send(ended=code, message=told)
            line.close()
        self._server.close()

    def attend(self, seconds: float = 0.0) -> None:
        """Take in what the others say, waiting at most so long for news.

        Raises:
            PeerLost: one of them failed or is gone.
            UsageError: one of them was started with something else.
        """
        ears = [self._server, *(line.connection for line in self._all())]
        ready, _, _ = select.select(ears, [], [], seconds)
        if self._server in ready:
            connection, _ = self._server.accept()
            self._strangers.append(JsonConnection(connection))
        for line in [*self._strangers]:
            self._greet(line)
        for rank, line in self._lines.items():
            for news in line.receive():
                if "failed" in news:
                    self._reasons[rank] = f"failed: {news['failed']}"
            if rank in self._reasons or not line.open:
                reason = self._reasons.get(rank, "is gone, without a word")
                raise PeerLost(f"{self._name(rank)} {reason}", _AGAIN)

    def gather(self, say: Callable[[str], None]) -> None:
        """Wait until all are here.

        Args:
            say: is told whom it waits for.

        Raises:
            PeerLost: not all of them came, or one is gone again.
            UsageError: one of them was started with something else.
        """
        deadline = time.monotonic() + GATHERING_SECONDS
        told = False
        while missing := set(range(1, self.group.size)) - self._lines.keys():
            names = ", ".join(map(str, sorted(missing)))
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"rank {names} of {self.group.size} did not come to "
                    f"{self.group.host}:{self.group.port} within {GATHERING_SECONDS:.0f} s",
                    "Read the logs of those processes; their machines must reach that address.",
                )
            if not told:
                say(f"waiting for rank {names} of {self.group.size}")
                told = True
            self.attend(_RETRY_SECONDS)

    def call(self) -> Rendezvous:
        """Send all others to a meeting, and return it."""
        meeting = Rendezvous.of(self.group, _free_port(self.group.host))
        for line in self._lines.values():
            line.send(train=meeting.port)
        return meeting

    def ask_why(self) -> None:
        """Give another process that is lost the time to say why.

        Raises:
            PeerLost: with its reason.
        """
        deadline = time.monotonic() + REASON_SECONDS
        while time.monotonic() < deadline:
            self.attend(_RETRY_SECONDS)

    def _all(self) -> list[JsonConnection]:
        return [line for line in (*self._strangers, *self._lines.values()) if line.open]

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {self.group.size}"

    def _greet(self, line: JsonConnection) -> None:
        """Learn who has connected; strangers are turned away."""
        for news in line.receive():
            rank = news.get("rank")
            awaited = set(range(1, self.group.size)) - self._lines.keys()
            if not isinstance(rank, int) or rank not in awaited or len(news) != 2:
                line.open = False
                break
            self._strangers.remove(line)
            self._lines[rank] = line
            if news.get("identity") != self._common:
                raise UsageError(
                    f"{self._name(rank)} was started with another manifest, or is another "
                    "version of job, than rank 0",
                    "Start all processes with the same command, from the same installation.",
                )
            return
        if not line.open:
            line.close()
            self._strangers.remove(line)


class Participant:
    """The side of every other rank: connects to rank 0 when it is entered.

    Args:
        group: which rank of how many this process is.
        common: what all must have in common.
    """

    def __init__(self, group: Group, common: str) -> None:
        self.group = group
        self._common = common

    def __enter__(self) -> Self:
        self._line = JsonConnection(self._connect())
        self._line.send(rank=self.group.rank, identity=self._common)
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def attend(self, seconds: float = 0.0) -> Rendezvous | None:
        """Take in what rank 0 says, waiting at most so long; returns the meeting it calls to.

        Raises:
            LeaderEnded: rank 0 ended; with code 0 if all is done.
            PeerLost: rank 0 is gone.
        """
        for news in self._line.receive(seconds):
            if "ended" in news:
                raise LeaderEnded(int(news["ended"]), f"rank 0 ended: {news['message']}")
            if "train" in news:
                return Rendezvous.of(self.group, int(news["train"]))
        if not self._line.open:
            raise PeerLost("rank 0 is gone, without a word", _AGAIN)
        return None

    def tell_failure(self, error: JobError) -> None:
        """Tell rank 0 why this process fails."""
        self._line.send(failed=error.message)

    def ask_why(self, seconds: float = REASON_SECONDS) -> None:
        """Give rank 0 the time to say how it ended.

        Raises:
            LeaderEnded: it did.
            PeerLost: it is gone.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.attend(_RETRY_SECONDS)

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + GATHERING_SECONDS
        where = (self.group.host, self.group.port)
        while True:
            try:
                return socket.create_connection(where, timeout=SECONDS)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise PeerLost(
                        f"rank 0 cannot be reached at {where[0]}:{where[1]}: {error}",
                        "Read its log; its machine must let the others reach that address.",
                    ) from error
            time.sleep(_RETRY_SECONDS)


@contextmanager
def joined(
    manifest: Manifest, index: int | None, say: Callable[[str], None]
) -> Iterator[Coordinator | Participant | None]:
    """Connect the processes that Paddle's launcher started together, if it did.

    Args:
        manifest: of the run.
        index: the model of a matrix that is wanted.
        say: is told what is waited for.

    Yields:
        This process's side: a leader with all others connected, or a follower. None alone.

    Raises:
        UsageError: they cannot train this together, or were started with different things.
        PeerLost: one of them did not come.
    """
    group = group_of(os.environ)
    if group is None:
        yield None
        return
    check_shared(manifest, group.size, index)
    if group.leads:
        with Coordinator(group, identity(manifest)) as leader:
            leader.gather(say)
            yield leader
    else:
        with Participant(group, identity(manifest)) as follower:
            yield follower


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
    return port
