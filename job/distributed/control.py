"""Control connections between rank 0 and each other rank. They are open while the processes run.

Rank 0 sends a message when training starts, and the outcome when the run has ended. A closed
connection means that the peer has ended. The supervising process of each rank then ends its own
training process. This is needed because a process inside a collective operation detects the loss of
a peer only after the timeout of the operation.
"""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from job.distributed.connection import SECONDS, JsonConnection
from job.distributed.group import Group, Rendezvous, check_shared, group_of, identity
from job.errors import DONE, INTERNAL, JobError, MachineError, PeerLost, RankZeroEnded, UsageError
from job.events import Say
from job.manifest import Manifest

# Timeout until all ranks have connected. Their nodes may be scheduled one after another.
GATHERING_SECONDS = 300.0
# After another rank failed, timeout for its error message.
REASON_SECONDS = 10.0
_RETRY_SECONDS = 0.2
_RESUME = "Run the same command again; training resumes from the last checkpoint."


class Coordinator:
    """Rank 0: accepts connections, and sends the outcome of the run on exit.

    Args:
        group: the group; this process is its rank 0.
        common: what all ranks must have in common, see :func:`job.distributed.group.identity`.

    Attributes:
        failure: the error to send on exit if the block raised no error, such as a failed gate.

    Raises:
        MachineError: the endpoint's port cannot be opened.
    """

    def __init__(self, group: Group, common: str) -> None:
        self.group = group
        self._common = common
        self.failure: JobError | None = None
        self._unidentified: list[JsonConnection] = []
        self._participants: dict[int, JsonConnection] = {}
        self._reasons: dict[int, str] = {}
        try:
            self._server = socket.create_server((group.host, group.port))
        except OSError as error:
            raise MachineError(
                f"rank 0 cannot listen at its endpoint {group.host}:{group.port}: {error}",
                "Set each endpoint in PADDLE_TRAINER_ENDPOINTS to a free port of its machine.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        failure = error or self.failure
        code, message = DONE, ""
        if isinstance(failure, JobError):
            code, message = failure.exit_code, failure.message
        elif failure is not None:
            code, message = INTERNAL, repr(failure)
        with suppress(JobError):
            self.poll()
        for connection in (*self._participants.values(), *self._unidentified):
            connection.send(ended=code, message=message)
            connection.close()
        self._server.close()

    def poll(self, seconds: float = 0.0) -> None:
        """Accept new connections and read messages.

        Args:
            seconds: timeout for the first message or connection.

        Raises:
            PeerLost: another rank failed, or its connection is closed.
            UsageError: another rank has another manifest or version.
        """
        sockets = [self._server, *(each.connection for each in self._open_connections())]
        ready, _, _ = select.select(sockets, [], [], seconds)
        if self._server in ready:
            accepted, _ = self._server.accept()
            self._unidentified.append(JsonConnection(accepted))
        for connection in [*self._unidentified]:
            self._identify(connection)
        for rank, connection in self._participants.items():
            for message in connection.receive():
                if "failed" in message:
                    self._reasons[rank] = f"{self._name(rank)} failed: {message['failed']}"
            if rank in self._reasons:
                raise PeerLost(self._reasons[rank], _RESUME)
            if not connection.open:
                raise PeerLost(
                    f"lost connection to {self._name(rank)}, which reported no error", _RESUME
                )

    def gather(self, say: Say) -> None:
        """Wait until all other ranks have connected.

        Args:
            say: callback for status messages while waiting.

        Raises:
            PeerLost: a rank did not connect in time, or closed its connection.
            UsageError: another rank has another manifest or version.
        """
        deadline = time.monotonic() + GATHERING_SECONDS
        announced = False
        while missing := self._missing_ranks():
            ranks = f"rank {', '.join(map(str, sorted(missing)))} of {self.group.size}"
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"timed out after {GATHERING_SECONDS:.0f} s waiting for {ranks} to connect to "
                    f"{self.group.host}:{self.group.port}",
                    "Check the logs of those processes, and that their machines can reach this "
                    "address.",
                )
            if not announced:
                say(f"waiting for {ranks}")
                announced = True
            self.poll(_RETRY_SECONDS)

    def call(self) -> Rendezvous:
        """Start the training on all other ranks, and return the address of the rendezvous."""
        rendezvous = Rendezvous.of(self.group, _free_port(self.group.host))
        for connection in self._participants.values():
            connection.send(train=rendezvous.port)
        return rendezvous

    def wait_for_reason(self) -> None:
        """Wait until a failed rank reports its error, or until the timeout.

        Raises:
            PeerLost: with the reported error.
        """
        deadline = time.monotonic() + REASON_SECONDS
        while time.monotonic() < deadline:
            self.poll(_RETRY_SECONDS)

    def _missing_ranks(self) -> set[int]:
        return set(range(1, self.group.size)) - self._participants.keys()

    def _open_connections(self) -> list[JsonConnection]:
        connections = (*self._unidentified, *self._participants.values())
        return [connection for connection in connections if connection.open]

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {self.group.size}"

    def _identify(self, connection: JsonConnection) -> None:
        """Read the rank of a new connection; close a connection that is not from the group."""
        for message in connection.receive():
            rank = message.get("rank")
            if not isinstance(rank, int) or rank not in self._missing_ranks() or len(message) != 2:
                connection.open = False
                break
            self._unidentified.remove(connection)
            self._participants[rank] = connection
            if message.get("identity") != self._common:
                raise UsageError(
                    f"{self._name(rank)} has another manifest or another version of job than "
                    "rank 0",
                    "Start all processes with the same command, from the same installation.",
                )
            return
        if not connection.open:
            connection.close()
            self._unidentified.remove(connection)


class Participant:
    """A rank other than 0: connects to rank 0 on entry.

    Entering raises PeerLost if rank 0 accepts no connection in time.

    Args:
        group: the group, and which rank this process is.
        common: what all ranks must have in common.
    """

    def __init__(self, group: Group, common: str) -> None:
        self.group = group
        self._common = common

    def __enter__(self) -> Self:
        self._connection = JsonConnection(self._connect())
        self._connection.send(rank=self.group.rank, identity=self._common)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def poll(self, seconds: float = 0.0) -> Rendezvous | None:
        """Read messages from rank 0. If rank 0 starts a training, return the rendezvous.

        Args:
            seconds: timeout for the first message.

        Raises:
            RankZeroEnded: rank 0 ended; the exit code is 0 if the run succeeded.
            PeerLost: the connection to rank 0 is closed.
        """
        for message in self._connection.receive(seconds):
            if "ended" in message:
                raise RankZeroEnded(int(message["ended"]), f"rank 0 ended: {message['message']}")
            if "train" in message:
                return Rendezvous.of(self.group, int(message["train"]))
        if not self._connection.open:
            raise PeerLost("lost connection to rank 0, which reported no error", _RESUME)
        return None

    def report_failure(self, error: JobError) -> None:
        """Send rank 0 the error of this process."""
        self._connection.send(failed=error.message)

    def wait_for_reason(self, seconds: float = REASON_SECONDS) -> None:
        """Wait until rank 0 reports how it ended, or until the timeout.

        Raises:
            RankZeroEnded: rank 0 ended.
            PeerLost: the connection to rank 0 is closed.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.poll(_RETRY_SECONDS)

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + GATHERING_SECONDS
        address = (self.group.host, self.group.port)
        while True:
            try:
                return socket.create_connection(address, timeout=SECONDS)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise PeerLost(
                        f"timed out after {GATHERING_SECONDS:.0f} s connecting to rank 0 at "
                        f"{address[0]}:{address[1]}: {error}",
                        "Check the log of rank 0, and that this machine can reach this address.",
                    ) from error
            time.sleep(_RETRY_SECONDS)


@contextmanager
def joined(
    manifest: Manifest, index: int | None, say: Say
) -> Iterator[Coordinator | Participant | None]:
    """Connect the processes that Paddle's launcher has started together.

    Args:
        manifest: the manifest of the run.
        index: position of the one model of a matrix to run; None without a matrix.
        say: callback for status messages while waiting.

    Yields:
        A coordinator with all other ranks connected on rank 0, a participant on the other ranks,
        None if this is the only process.

    Raises:
        UsageError: several processes cannot train this manifest together, or they have different
            manifests or versions.
        MachineError: rank 0 cannot listen at its endpoint.
        PeerLost: another rank did not connect in time, or rank 0 cannot be reached.
    """
    group = group_of(os.environ)
    if group is None:
        yield None
        return
    check_shared(manifest, group.size, index)
    if group.leads:
        with Coordinator(group, identity(manifest)) as coordinator:
            coordinator.gather(say)
            yield coordinator
    else:
        with Participant(group, identity(manifest)) as participant:
            yield participant


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
    return port
