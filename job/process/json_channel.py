"""Child processes that exchange JSON objects with their parent and end when the parent ends.

The parent starts a :class:`ChildProcess`. The module that the child runs calls :func:`run_child`.
The objects are sent through a separate socket, because libraries print to standard output.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from job import errors
from job.process.parent_death import die_with_parent

_BLOCK_BYTES = 1 << 16
_STDERR = 2
# After the child has ended, time for the processes that the child started to end by themselves.
_ORPHAN_SECONDS = 1.0


class JsonChannel:
    """One end of a connection for JSON objects, one per line.

    Args:
        connection: a connected socket. The channel closes it.

    Attributes:
        closed: whether the peer has closed the connection.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.closed = False
        self._socket = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._lock = threading.Lock()
        self._buffer = bytearray()

    def send(self, **message: Any) -> None:
        """Send an object, which may contain NaN; several threads may do so.

        Raises:
            TypeError: a value cannot be written as JSON.
            BrokenPipeError: the peer has closed the connection.
        """
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            self._socket.sendall(line)

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """Return the next object, or None after a timeout or when the peer closed the connection.

        Args:
            seconds: timeout for each part of the object; None waits without limit.
        """
        timeout_ms = None if seconds is None else 1000 * seconds
        while b"\n" not in self._buffer:
            if self.closed or not self._poll.poll(timeout_ms):
                return None
            block = b""
            with suppress(ConnectionResetError):  # The peer ended without reading a message.
                block = self._socket.recv(_BLOCK_BYTES)
            self.closed = not block
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def has_input(self) -> bool:
        """Return whether an object has begun to arrive, or the connection was closed."""
        return bool(self._buffer or self._poll.poll(0))

    def close(self) -> None:
        """Close this end of the connection."""
        self._socket.close()


class ChildProcess:
    """A process that runs a module of the job until :meth:`close`.

    The kernel kills the process when the thread that started it ends.

    Args:
        module: the module to run.
        request: the first object to send.
        environment: all environment variables of the process.
        log: receives standard output and error; None for this process's standard error.
        inherit: further file descriptors that stay open in the process.
        own_session: start the process in a new session, so that it does not receive Ctrl-C from the
            terminal. Then ``kill`` and ``close`` also end the child processes of the process.

    Attributes:
        channel: the connection to the process.
        pid: the process id.
        exit_code: None until ``poll`` or ``wait`` finds the process ended; minus the signal's
            number if a signal killed it.
        peak_bytes: peak memory of the ended process.
        exception: class and message of an unexpected exception, or empty.
    """

    def __init__(
        self,
        module: str,
        request: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        log: IO[Any] | None = None,
        inherit: Sequence[int] = (),
        own_session: bool = False,
    ) -> None:
        self.exit_code: int | None = None
        self.peak_bytes = 0
        self.exception = ""
        self._own_session = own_session
        ours, theirs = socket.socketpair()
        self.channel = JsonChannel(ours)
        # -P: a folder called job in the current directory is not this package.
        command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log or _STDERR,
                stderr=log or _STDERR,
                env=environment,
                pass_fds=(theirs.fileno(), *inherit),
                start_new_session=own_session,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.send(**request)

    def send(self, **message: Any) -> None:
        """Send an object; ``receive`` reports a process that has ended."""
        with suppress(BrokenPipeError):
            self.channel.send(**message)

    def receive(self, seconds: float | None = None) -> dict[str, Any] | None:
        """Return the next object, as :meth:`JsonChannel.receive` does.

        Raises:
            JobError: the process raised it.
        """
        message = self.channel.receive(seconds)
        if message and "raised" in message:
            raise _rebuild(*message["raised"])
        if message and "exception" in message:
            self.exception = message["exception"]
            return self.receive(seconds)
        return message

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        """Wait for the end of the process and return its exit code."""
        return self._reap(0) or 0

    def _reap(self, options: int) -> int | None:
        if self.exit_code is None:
            # Popen.wait does not return the peak memory of the process.
            pid, status, usage = os.wait4(self.pid, options)
            if pid:
                self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)
                self.peak_bytes = usage.ru_maxrss * 1024
        return self.exit_code

    def signal(self, signum: int) -> None:
        """Send a signal to the process alone, unless it has ended."""
        if self.exit_code is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """Kill the process. If it was started in a new session, also kill its process group."""
        self.signal(signal.SIGKILL)
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, signum: int) -> bool:
        """Signal every process of the session that kept its group; return False if none did."""
        try:
            if self._own_session:
                os.killpg(self.pid, signum)
        except ProcessLookupError:
            return False
        return self._own_session

    def close(self) -> None:
        """End the process and close the connection to it."""
        deadline = time.monotonic() + (_ORPHAN_SECONDS if self.poll() is not None else 0.0)
        while time.monotonic() < deadline and self._signal_group(0):
            time.sleep(0.02)
        self.kill()
        self.wait()
        self.channel.close()


def run_child(work: Callable[[Mapping[str, Any], JsonChannel], None]) -> None:
    """Run a child's work on the parent's request: ``python -m MODULE DESCRIPTOR PARENT_PID``.

    If the work raises a JobError, the parent's :meth:`ChildProcess.receive` raises an error of the
    same class or of a base class.
    """
    descriptor, parent = map(int, sys.argv[1:])
    die_with_parent(parent)
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    channel = JsonChannel(connection)
    try:
        work(channel.receive() or {}, channel)
    except errors.JobError as error:
        channel.send(raised=[type(error).__name__, error.message, error.hint])
    except Exception as error:
        channel.send(exception=f"{type(error).__name__}: {error}")
        raise


def describe_exit(exit_code: int) -> str:
    """Return how a process ended: ``was killed by SIGSEGV`` or ``exited with code 1``."""
    if exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"exited with code {exit_code}"


def _rebuild(name: str, message: str, hint: str) -> errors.JobError:
    """Return a child's error as the same class, or as a base class of it."""
    kind = getattr(errors, name, errors.JobError)
    if kind.__init__ is not errors.JobError.__init__:
        # ManifestError and Stopped take other arguments; the message already contains them.
        kind = errors.UsageError if issubclass(kind, errors.UsageError) else errors.JobError
    rebuilt: errors.JobError = kind(message, hint)
    return rebuilt
