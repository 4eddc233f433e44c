"""Interleaved timing: each model in a process of its own, their rounds alternating.

The models wait while another is timed, so a machine that drifts, throttles or has a busy neighbour
hits all of them alike; the ratio is taken per round.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from job import stats
from job.errors import MachineError, QuantizationError
from job.events import Events

# A candidate this much slower than the fastest of its kind in the pilot is not timed further.
HOPELESS = 1.3
MIN_BATCHES_A_ROUND = 3


@dataclass(frozen=True)
class Candidate:
    """A model to time.

    Attributes:
        label: ``native``, ``onednn`` or ``int8``, the mode that it runs in.
        prefix: of the saved model.
    """

    label: str
    prefix: Path


@dataclass(frozen=True)
class Setting:
    """What is timed: images a batch, threads, (channels, height, width)."""

    batch_size: int
    threads: int
    input_shape: tuple[int, int, int]


@dataclass(frozen=True)
class Samples:
    """Raw latencies of one model, per round, in milliseconds a batch."""

    label: str
    rounds: Sequence[Sequence[float]]
    peak_rss_bytes: int

    @property
    def all(self) -> list[float]:
        """Every latency."""
        return [value for one in self.rounds for value in one]


class Timer:
    """A process that times one model."""

    def __init__(self, candidate: Candidate, setting: Setting, cores: Sequence[int]) -> None:
        self.label = candidate.label
        self.peak_rss_bytes = 0
        command = [
            sys.executable,
            "-m",
            "job.engine.timing",
            str(candidate.prefix),
            candidate.label,
            ",".join(map(str, setting.input_shape)),
            str(setting.batch_size),
            str(setting.threads),
        ]
        # Threads and cores must stand before the libraries load and start their pools.
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(setting.threads),
            "MKL_NUM_THREADS": str(setting.threads),
        }
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=partial(os.sched_setaffinity, 0, cores),
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
        return json.loads(line)

    def time(self, seconds: float, batches: int) -> list[float]:
        """Latencies of one round, in milliseconds a batch."""
        assert self.process.stdin is not None  # noqa: S101
        # A process that is gone is told by what `read` finds.
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"seconds": seconds, "batches": batches}) + "\n")
            self.process.stdin.flush()
        answer = self.read()
        self.peak_rss_bytes = int(answer["peak_rss_bytes"])
        latencies: list[float] = answer["milliseconds"]
        return latencies

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


@contextmanager
def started(
    candidates: Sequence[Candidate], setting: Setting, cores: Sequence[int]
) -> Iterator[list[Timer]]:
    """Timers with their models loaded."""
    with ExitStack() as stack:
        timers = []
        for candidate in candidates:
            timer = Timer(candidate, setting, cores)
            stack.callback(timer.close)
            timer.read()
            timers.append(timer)
        yield timers


def measure(
    candidates: Sequence[Candidate],
    setting: Setting,
    *,
    warmup_batches: int,
    min_seconds: float,
    rounds: int,
    events: Events,
) -> list[Samples]:
    """Time models in alternating rounds.

    Args:
        candidates: several FP32 ones and the INT8 one.
        setting: batch size, threads and image size.
        warmup_batches: batches of each model that are not counted.
        min_seconds: time for each model in all, shared by its rounds.
        rounds: how often the models take turns.
        events: told after each round.

    Raises:
        MachineError: more threads are asked for than there are cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    if setting.threads > len(cores):
        raise MachineError(
            f"/benchmark/threads: {setting.threads} threads asked for, {len(cores)} cores usable",
            "Lower it, or give the container more cores.",
        )
    with started(candidates, setting, cores[: setting.threads]) as timers:
        pilots = {timer.label: min(timer.time(0, 2)) for timer in timers}
        kept = [t for t in timers if t.label == "int8" or is_competitive(t.label, pilots)]
        for timer in kept:
            timer.time(0, warmup_batches)
        latencies: dict[str, list[list[float]]] = {timer.label: [] for timer in kept}
        what = f"batch {setting.batch_size}, {setting.threads} threads"
        for done in range(rounds):
            # Turned about each round, so that no model always runs after the same one.
            for timer in kept if done % 2 == 0 else reversed(kept):
                latencies[timer.label].append(timer.time(min_seconds / rounds, MIN_BATCHES_A_ROUND))
            events.progress("benchmark", done + 1, rounds, "rounds", what)
        return [Samples(t.label, latencies[t.label], t.peak_rss_bytes) for t in kept]


def is_competitive(label: str, pilots: Mapping[str, float]) -> bool:
    """Whether an FP32 candidate may still be the fastest one."""
    best = min(value for name, value in pilots.items() if name != "int8")
    return pilots[label] <= HOPELESS * best


def row(samples: Sequence[Samples], setting: Setting, isa: str) -> dict[str, Any]:
    """Table II's row: the faster FP32 against INT8.

    Args:
        samples: of one or more FP32 candidates and of ``int8``.
        setting: what was timed.
        isa: the instruction set that the INT8 model ran on.
    """
    by_label = {one.label: one for one in samples}
    rates = {one.label: round_rates(one, setting.batch_size) for one in samples}
    speeds = {label: stats.mean_throughput(rate) for label, rate in rates.items()}
    engines = {name: speed for name, speed in speeds.items() if name != "int8"}
    fastest = max(engines, key=lambda name: engines[name])
    fp32, int8 = by_label[fastest], by_label["int8"]
    ratio = stats.paired_ratio(rates[fastest], rates["int8"])
    return {
        "batch_size": setting.batch_size,
        "threads": setting.threads,
        "isa": isa,
        "fp32": describe(fp32, fastest, setting.batch_size),
        "int8": describe(int8, "onednn", setting.batch_size),
        "ratio": ratio.value,
        "ratio_interval": list(ratio.interval or (ratio.value, ratio.value)),
        "fp32_engines": engines,
    }


def round_rates(samples: Samples, batch_size: int) -> list[float]:
    """Images a second of each round."""
    return [1000.0 * batch_size * len(one) / sum(one) for one in samples.rounds]


def describe(samples: Samples, engine: str, batch_size: int) -> dict[str, Any]:
    """One model's side of a row."""
    quantiles = stats.percentiles(samples.all)
    histogram = stats.latency_histogram(samples.all)
    return {
        "engine": engine,
        "images_per_second": stats.mean_throughput(round_rates(samples, batch_size)),
        "latency_ms": {"p50": quantiles.p50, "p90": quantiles.p90, "p99": quantiles.p99},
        "peak_rss_bytes": samples.peak_rss_bytes,
        "samples": len(samples.all),
        "histogram": {"edges_ms": list(histogram.edges_ms), "counts": list(histogram.counts)},
    }
