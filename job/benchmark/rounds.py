"""Interleaved timing: every round starts new processes for each model and times them alternately.

While one model is timed, the other models are suspended. Drift, throttling and other processes
therefore affect all models equally. The speedup is computed for each round. Two processes running
the same model can differ in speed by one to three percent for their whole lifetime. The process
that is started first can also be slower (ResNet50 in FP32: by one to four percent). The speedup of
a single pair of processes contains these differences, for any duration of the measurement.
Therefore every round starts new processes, in alternating order.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from job.benchmark import cpu_counters, cpu_pinning
from job.benchmark.samples import BenchmarkSetting, Conditions, Samples
from job.benchmark.stability import Observation, together
from job.benchmark.timer import Candidate, InstanceGroup
from job.events import Events
from job.host import read_host

NATIVE, ONEDNN = FP32 = ("native", "onednn")
# FP32 in the OpenVINO engine in Paddle. The speedup in table II is over the faster engine in
# ``FP32``, which does not contain this engine.
ENGINE_FP32 = "fp32_paddle_openvino"
NOOP = "nothing"
T = TypeVar("T")
# An FP32 engine that is slower than the faster one by this factor in the warm-up is dropped.
TOO_SLOW = 1.3
# Long enough for thousands of calls of the no-op model.
NOOP_SECONDS = 0.02
# The first call is slower, so it must not decide which engine is faster.
LEAST_WARMUP = 2
CHECKED_IMAGES = 8
# Turns of each model in a round, if its calls are short.
TURNS = 4


@dataclass(frozen=True)
class TimingBudget:
    """How long each model is timed.

    Attributes:
        warmup_batches: untimed calls of each model in each round. If they would take longer than
            ``round_seconds``, fewer calls are made.
        min_seconds: minimum measurement time of each model in seconds, over all rounds.
        min_samples: minimum number of timed calls of each model, over all rounds and instances.
        rounds: number of rounds.
    """

    warmup_batches: int
    min_seconds: float
    min_samples: int
    rounds: int

    @property
    def warmup(self) -> int:
        """Number of untimed calls in each round."""
        return max(self.warmup_batches, LEAST_WARMUP)

    @property
    def round_seconds(self) -> float:
        """Minimum measurement time of each model in one round, in seconds."""
        return self.min_seconds / self.rounds


@dataclass(frozen=True)
class Measurement:
    """The data of one row of table II.

    Attributes:
        samples: samples of each model that was not dropped, including the no-op model.
        observed: the use of the cores during the timing.
        scores: the INT8 model's scores [images][classes] for a few fixed images.
    """

    samples: Sequence[Samples]
    observed: Observation
    scores: Sequence[Sequence[float]]


def measure(
    candidates: Sequence[Candidate],
    setting: BenchmarkSetting,
    budget: TimingBudget,
    *,
    isa: str,
    events: Events,
) -> Measurement | None:
    """Time models in alternating rounds.

    Args:
        candidates: one or two FP32 models, the INT8 model, and INT8 models of other engines.
        setting: batch size, threads, instances and the rest.
        budget: how long to time.
        isa: the instruction set that the INT8 model executes under the setting's cap.
        events: receives progress after each round.

    Returns:
        None if the job is stopping.

    Raises:
        MachineError: the setting needs more cores than this process may use.
        QuantizationError: a timing process ended unexpectedly.
    """
    cpu_pinning.check([setting])
    racing = [*candidates, Candidate(NOOP, Path(NOOP))]
    rounds: list[Round] = []
    for done in range(budget.rounds):
        completed = run_round(racing, setting, budget, done, events)
        if completed is None:
            return None
        rounds.append(completed)
        racing = [candidate for candidate in racing if candidate.label in completed.latencies]
        events.progress("benchmark", done + 1, budget.rounds, "rounds", str(setting))
    conditions = Conditions(read_host().as_report(), isa, setting)
    samples = [
        Samples(
            label,
            [one.latencies[label] for one in rounds],
            max(one.peak_rss_bytes[label] for one in rounds),
            conditions,
        )
        for label in (candidate.label for candidate in racing)
    ]
    return Measurement(samples, together([one.observed for one in rounds]), rounds[-1].scores)


@dataclass(frozen=True)
class Round:
    """The data of one round.

    Attributes:
        latencies: milliseconds of each model, as [instance][call].
        peak_rss_bytes: peak memory of each model's largest process.
        observed: the use of the cores while models were timed.
        scores: as in :class:`Measurement`.
    """

    latencies: Mapping[str, Sequence[Sequence[float]]]
    peak_rss_bytes: Mapping[str, int]
    observed: Observation
    scores: Sequence[Sequence[float]]


def run_round(
    racing: Sequence[Candidate],
    setting: BenchmarkSetting,
    budget: TimingBudget,
    number: int,
    events: Events,
) -> Round | None:
    """Start every model, warm it up and time it; return None if the job is stopping.

    Args:
        racing: the models.
        setting: batch size, threads, instances and the rest.
        budget: how long to time.
        number: number of the round, from 0. Round 0 drops an FP32 engine that is too slow.
        events: reports whether the job is stopping.
    """
    pinned = cpu_pinning.pinned(setting)
    with started(in_turn(racing, number), setting, pinned) as groups:
        if number == 0:
            groups = competitive(groups, budget)
        else:
            warm_up(groups, budget)
        before, used_before = cpu_counters.read(pinned), used(groups)
        # Over the rounds, no model is always started first or always timed first.
        latencies = timed(in_turn(groups, number // 2), budget, events)
        if latencies is None:
            return None
        after, used_after = cpu_counters.read(pinned), used(groups)
        observed = cpu_counters.between(
            before,
            after,
            cores=setting.cores,
            model_seconds=used_after[0] - used_before[0],
            preemptions=used_after[1] - used_before[1],
        )
        scores = {group.label: group for group in groups}["int8"].scores(CHECKED_IMAGES)
        peaks = {group.label: group.peak_rss_bytes for group in groups}
        return Round(latencies, peaks, observed, scores)


def in_turn(models: Sequence[T], number: int) -> Sequence[T]:
    """Return the models in order for even numbers, in reverse order for odd ones."""
    return models if number % 2 == 0 else models[::-1]


@contextmanager
def started(
    candidates: Sequence[Candidate], setting: BenchmarkSetting, pinned: Sequence[int]
) -> Iterator[list[InstanceGroup]]:
    """Start the processes of all candidates, then load the models one after another."""
    with ExitStack() as stack:
        groups = []
        for candidate in candidates:
            groups.append(InstanceGroup(candidate, setting, pinned))
            stack.callback(groups[-1].close)
        for group in groups:
            group.load()
        yield groups


def warm_up(groups: Sequence[InstanceGroup], budget: TimingBudget) -> dict[str, float]:
    """Warm every model up; return the milliseconds of each model's fastest call."""
    return {
        group.label: fastest_call(group, budget.warmup, budget.round_seconds) for group in groups
    }


def competitive(groups: Sequence[InstanceGroup], budget: TimingBudget) -> list[InstanceGroup]:
    """Warm all models up; end the processes of an FP32 engine that is too slow."""
    fastest = warm_up(groups, budget)
    both = fastest.keys() >= set(FP32)
    for group in sorted(groups, key=lambda group: group.label != ONEDNN) if both else ():
        # If the first call took many seconds, it was the only one, and created oneDNN's primitives.
        if group.label == ONEDNN or (group.label == NATIVE and is_competitive(NATIVE, fastest)):
            fastest[group.label] = min(fastest[group.label], fastest_call(group, 1, 0.0))
    fp32 = (*FP32, ENGINE_FP32)
    kept = [f for f in groups if f.label not in fp32 or is_competitive(f.label, fastest)]
    for group in groups:
        if group not in kept:
            group.close()
    return kept


def fastest_call(group: InstanceGroup, batches: int, limit: float) -> float:
    """Return the milliseconds of the fastest call.

    Args:
        group: the model's instances.
        batches: number of calls; at least one is made.
        limit: seconds after which no further call starts.
    """
    return min(min(instance) for instance in group.time(0, batches, limit))


def is_competitive(label: str, fastest: Mapping[str, float]) -> bool:
    """Return whether a call takes at most ``TOO_SLOW`` times as long as in the faster of ``FP32``.

    Args:
        label: label of the engine.
        fastest: milliseconds of each model's fastest call so far.
    """
    best = min(value for name, value in fastest.items() if name in FP32)
    return fastest[label] <= TOO_SLOW * best


def timed(
    groups: Sequence[InstanceGroup], budget: TimingBudget, events: Events
) -> dict[str, list[list[float]]] | None:
    """Return each model's latencies in one round, as [instance][call]; None if the job is stopping.

    Each model runs for a short time before the next model runs, so that a short disturbance of the
    machine affects all models.
    """
    batches = math.ceil(budget.min_samples / budget.rounds / len(groups[0].timers))
    latencies: dict[str, list[list[float]]] = {f.label: [[] for _ in f.timers] for f in groups}
    for turn in range(TURNS):
        for group in in_turn(groups, turn):
            least = NOOP_SECONDS if group.label == NOOP else math.inf
            seconds = min(budget.round_seconds, least)
            instances = latencies[group.label]
            missing = batches - min(map(len, instances))
            if missing <= 0 and min(map(sum, instances)) >= 1000 * seconds:
                continue
            latest = group.time(seconds / TURNS, min(missing, math.ceil(batches / TURNS)))
            for calls, new in zip(instances, latest, strict=True):
                calls += new
            if events.stopping:
                return None
    return latencies


def used(groups: Sequence[InstanceGroup]) -> tuple[float, int]:
    """Return the processor time in seconds and the preemptions of all timing processes so far."""
    timers = [timer for group in groups for timer in group.timers]
    return sum(t.cpu_seconds for t in timers), sum(t.preemptions for t in timers)
