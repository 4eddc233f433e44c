"""Starts processes that time one model each and run :mod:`job.benchmark.timer_main`.

While a process has no command, it is suspended (SIGSTOP). Otherwise its threads could wait in a
spin loop and take processor time from the model that is being timed.
"""

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.benchmark.samples import BenchmarkSetting
from job.errors import QuantizationError
from job.isa import isa_environment
from job.process.environment import environment
from job.process.json_channel import ChildProcess, describe_exit

# A command reaches every instance within this time, so all instances start together.
BARRIER_NS = 5_000_000
NO_LIMIT = 1e9


@dataclass(frozen=True)
class Candidate:
    """A model to time.

    Attributes:
        label: how the model runs: ``native``, ``onednn`` or ``fp32_paddle_openvino`` for FP32;
            ``int8``, ``paddle_openvino``, ``openvino`` or ``onnxruntime`` for INT8; ``nothing`` for
            the no-op model.
        path: path of the saved model without suffix; for INT8 in other engines, its folder.
    """

    label: str
    path: Path


class Timer:
    """A process that times one model, which it loads on command.

    Attributes:
        label: the label of the candidate.
        process: the child process.
        peak_rss_bytes: peak memory of the process at its last answer.
        cpu_seconds: processor time that the process had used at its last answer.
        preemptions: involuntary context switches of the process at its last answer.
    """

    def __init__(
        self, candidate: Candidate, setting: BenchmarkSetting, cores: Sequence[int]
    ) -> None:
        self.label = candidate.label
        self.peak_rss_bytes, self.cpu_seconds, self.preemptions = 0, 0.0, 0
        request = {
            "path": str(candidate.path),
            "mode": candidate.label,
            "shape": setting.input_shape,
            "batch_size": setting.batch_size,
            "threads": setting.threads,
            "cores": cores,
        }
        # ONEDNN_VERBOSE of the user would log every primitive of every timed call.
        variables = isa_environment(setting.isa_cap) | {"ONEDNN_VERBOSE": "0"}
        self.process = ChildProcess(
            "job.benchmark.timer_main",
            request,
            environment=environment(setting.threads) | variables,
        )

    def read(self) -> Any:
        """Return the next answer.

        Raises:
            QuantizationError: the process ended.
        """
        answer = self.process.receive()
        if answer is None:
            raise QuantizationError(
                f"the process that times the {self.label} model "
                f"{describe_exit(self.process.wait())}",
                "Read the log of the benchmark stage. If memory ran out, lower "
                "benchmark.batch_sizes.",
            )
        self.peak_rss_bytes = int(answer["peak_rss_bytes"])
        self.cpu_seconds = float(answer["cpu_seconds"])
        self.preemptions = int(answer["preemptions"])
        return answer

    def send(self, do: str, **values: Any) -> None:
        """Send a command and let the process run."""
        self.process.send(do=do, **values)
        self.process.signal(signal.SIGCONT)

    def suspend(self) -> None:
        """Stop the process by a signal until the next command."""
        self.process.signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process."""
        self.process.close()


class InstanceGroup:
    """All instances of one model: started processes, suspended whenever they have no command.

    Args:
        candidate: the model.
        setting: number of instances, threads, batch size and the rest.
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
                own_cores = cores[start : start + setting.threads]
                self.timers.append(Timer(candidate, setting, own_cores))
            stack.pop_all()

    def load(self) -> None:
        """Load the model in every instance and wait until all have loaded it."""
        for timer in self.timers:
            timer.send("load")
        self._answers()

    def time(self, seconds: float, batches: int, limit: float = NO_LIMIT) -> list[list[float]]:
        """Time all instances simultaneously.

        Args:
            seconds: minimum duration of each instance's timing.
            batches: minimum number of calls of each instance.
            limit: seconds after which an instance stops, after at least one call, even if it has
                not reached a minimum.

        Returns:
            Milliseconds per call, as [instance][call].
        """
        several = len(self.timers) > 1
        start_ns = time.monotonic_ns() + (BARRIER_NS if several else 0)
        for timer in self.timers:
            timer.send(
                "time",
                seconds=seconds,
                batches=batches,
                limit=limit,
                start_ns=start_ns,
                keep_busy=several,
            )
        latencies = [answer["milliseconds"] for answer in self._answers(suspend=not several)]
        if several:
            for timer in self.timers:
                timer.send("pause")
            self._answers()
        return latencies

    @property
    def peak_rss_bytes(self) -> int:
        """Largest peak memory of the processes, in bytes."""
        return max(timer.peak_rss_bytes for timer in self.timers)

    def scores(self, images: int) -> list[list[float]]:
        """Return the timed model's scores [images][classes] for the first of its images."""
        first = self.timers[0]
        first.send("scores", images=images)
        scores: list[list[float]] = first.read()["scores"]
        first.suspend()
        return scores

    def close(self) -> None:
        """End all processes."""
        for timer in self.timers:
            timer.close()

    def _answers(self, *, suspend: bool = True) -> list[Any]:
        answers = [timer.read() for timer in self.timers]
        if suspend:
            for timer in self.timers:
                timer.suspend()
        return answers
