"""Commands of the job, in forks of one process that has already imported Paddle.

A run starts up to ten processes, and each takes one to three seconds of CPU time to import Paddle,
PaddleSlim or scikit-learn. The commands that this server runs, and the processes that they start,
are forks instead. Processes that measure time are executed, because oneDNN reads its environment
variables when it is loaded.
"""

import atexit
import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import forked

from job.data.decoding import pool
from job.process import json_channel
from job.process.environment import environment

IMPORTED = (
    *("job.engine.int8.build", "job.engine.quantize.qat", "job.engine.training.baseline"),
    *("job.engine.compare.differences", "paddleslim.quant", "sklearn.datasets", "PIL.Image"),
)
EXECUTED = ("job.benchmark.timer_main", "job.profile.record_main")


class Popen(forked.Popen):
    """Forks Python commands. Commands that measure time run in new processes."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        executed = any(module in args for module in EXECUTED)
        kind = subprocess.Popen if executed else forked.Popen
        kind._execute_child(self, args, *rest)  # type: ignore[attr-defined]


class Server:
    """A process that runs commands one after the other, until this process ends."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).resolve())]
        variables = environment(len(os.sched_getaffinity(0)))
        self._process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        variables: Mapping[str, str],
        streams: Sequence[Path],
        limit_s: float,
    ) -> tuple[int, float]:
        """Run a command to its end; returns its exit code and CPU seconds.

        Args:
            command: starts with the interpreter.
            cwd: the current directory.
            variables: all environment variables.
            streams: files of standard input, output and error.
            limit_s: the command is killed after this time.
        """
        request = [command, str(cwd), dict(variables), list(map(str, streams)), limit_s]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            code, seconds = json.loads(self._process.stdout.readline())
        except BaseException:
            # Its next reply would be that of this command.
            self._process.kill()
            server.cache_clear()
            raise
        return code, seconds

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@cache
def server() -> Server:
    """The server of this process; the first call starts it."""
    started = Server()
    atexit.register(started.close)
    return started


def answer(
    command: Sequence[str],
    cwd: str,
    variables: Mapping[str, str],
    streams: Sequence[str],
    limit_s: float,
) -> tuple[int, float]:
    """Run one command."""
    before = cpu_seconds()
    with (
        Path(streams[0]).open("rb") as stdin,
        Path(streams[1]).open("wb") as stdout,
        Path(streams[2]).open("wb") as stderr,
    ):
        process = Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=variables)
    try:
        code = process.wait(limit_s)
    finally:
        process.kill()
    return code, cpu_seconds() - before


def cpu_seconds() -> float:
    """CPU seconds of all child processes that have ended, with their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def serve() -> None:
    """Answer the requests on standard input."""
    for module in IMPORTED:
        importlib.import_module(module)
    replies = os.fdopen(os.dup(1), "w")
    # What libraries print must not get between the replies.
    os.dup2(2, 1)
    with forked.forking(json_channel, pool, popen=Popen):
        for line in sys.stdin:
            print(json.dumps(answer(*json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    serve()
