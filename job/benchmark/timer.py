"""Starts processes that time one model each; ``timer_main`` is the program they run.

A process that is not asked for anything is stopped by a signal: threads that wait in a spin loop
would otherwise take time from the model whose turn it is.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.benchmark.samples import BenchmarkSetting
from job.errors import QuantizationError
from job.isa import isa_environment

# News reach a process within this time, so that all instances start together.
BARRIER_NS = 5_000_000
NO_LIMIT = 1e9


@dataclass(frozen=True)
class Candidate:
    """A model to time.

    Attributes:
        label: the mode that it runs in: ``native`` or ``onednn`` for FP32; ``int8``, ``openvino``
            or ``onnxruntime`` for INT8; ``nothing`` for the model that does nothing.
        path: of the saved model without suffix; for other engines than Paddle its folder.
    """

    label: str
    path: Path


class Timer:
    """A process that times one model, once it was told to load it.

    Attributes:
        label: of its candidate.
        peak_rss_bytes: its peak memory, as of its last answer.
        cpu_seconds: the processor time that it used, as of its last answer.
        preemptions: how often its core was taken away, as of its last answer.
    """

    def __init__(
        self, candidate: Candidate, setting: BenchmarkSetting, cores: Sequence[int]
    ) -> None:
        self.label = candidate.label
        self.peak_rss_bytes, self.cpu_seconds, self.preemptions = 0, 0.0, 0
        command = [
            sys.executable,
            "-P",  # A folder called job in the current directory is not this package.
            "-m",
            "job.benchmark.timer_main",
            str(candidate.path),
            candidate.label,
            ",".join(map(str, setting.input_shape)),
            str(setting.batch_size),
            str(setting.threads),
            ",".join(map(str, cores)),
            str(os.getpid()),
        ]
        # These must stand before the libraries load and start their pools.
        environment = {
            **os.environ,
            **isa_environment(setting.isa_cap),
            "OMP_NUM_THREADS": str(setting.threads),
            "MKL_NUM_THREADS": str(setting.threads),
            # A user's own would have every primitive of every timed call written to the log.
            "ONEDNN_VERBOSE": "0",
        }
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> Any:
        """The next answer.

        Raises:
            QuantizationError: the process ended.
        """
        assert self.process.stdout is not None  # noqa: S101
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise QuantizationError(
                f"timing the {self.label} model ended with code {code}",
                "See the benchmark stage's log; a smaller batch size needs less memory.",
            )
        answer = json.loads(line)
        self.peak_rss_bytes = int(answer["peak_rss_bytes"])
        self.cpu_seconds = float(answer["cpu_seconds"])
        self.preemptions = int(answer["preemptions"])
        return answer

    def send(self, do: str, **values: Any) -> None:
        """Give a command and let the process run."""
        assert self.process.stdin is not None  # noqa: S101
        # A process that is gone is told by what `read` finds.
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self.process.stdin.flush()
        self.process.send_signal(signal.SIGCONT)

    def rest(self) -> None:
        """Keep the process from running until it is given a command."""
        self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class InstanceGroup:
    """All instances of one model, started; they rest as soon as it is loaded.

    Args:
        candidate: the model.
        setting: how many instances, and of what.
        cores: one for each thread of each instance.
    """

    def __init__(
        self, candidate: Candidate, setting: BenchmarkSetting, cores: Sequence[int]
    ) -> None:
        self.label = candidate.label
        self.timers: list[Timer] = []
        with ExitStack() as stack:
            stack.callback(self.close)
            for start in range(0, setting.cores, setting.threads):
                own = cores[start : start + setting.threads]
                self.timers.append(Timer(candidate, setting, own))
            stack.pop_all()

    def load(self) -> None:
        """Load the model, and return when all instances have it."""
        for timer in self.timers:
            timer.send("load")
        self._answers()

    def time(self, seconds: float, batches: int, limit: float = NO_LIMIT) -> list[list[float]]:
        """Time all instances at once.

        Args:
            seconds: each instance is timed for at least so long.
            batches: each instance is called at least so often.
            limit: seconds after which an instance ends all the same, after at least one call.

        Returns:
            Milliseconds a call, as [instance][call].
        """
        together = len(self.timers) > 1
        start_ns = time.monotonic_ns() + (BARRIER_NS if together else 0)
        for timer in self.timers:
            timer.send(
                "time",
                seconds=seconds,
                batches=batches,
                limit=limit,
                start_ns=start_ns,
                keep_busy=together,
            )
        found = [answer["milliseconds"] for answer in self._answers(rest=not together)]
        if together:
            for timer in self.timers:
                timer.send("pause")
            self._answers()
        return found

    @property
    def peak_rss_bytes(self) -> int:
        """Peak memory of the largest process."""
        return max(timer.peak_rss_bytes for timer in self.timers)

    def scores(self, images: int) -> list[list[float]]:
        """Scores [images][classes] that the timed model gives for the images it was timed on."""
        first = self.timers[0]
        first.send("scores", images=images)
        answer: list[list[float]] = first.read()["scores"]
        first.rest()
        return answer

    def close(self) -> None:
        """End all processes."""
        for timer in self.timers:
            timer.close()

    def _answers(self, *, rest: bool = True) -> list[Any]:
        found = [timer.read() for timer in self.timers]
        if rest:
            for timer in self.timers:
                timer.rest()
        return found
