"""Interleaved timing: each model in processes of its own, anew in each round.

The models rest while another is timed, so a machine that drifts, throttles or has a busy neighbour
hits all of them alike; the ratio is taken per round. Processes of one and the same model differ by
one to three percent for as long as they live, likely by where their memory lies, and can be slower
for being started first (ResNet50 in FP32: by one to four percent). A ratio of two processes would
hold their difference, and no number of rounds would show it: so every round starts its own, in
turned order.
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
NOOP = "nothing"
T = TypeVar("T")
# An FP32 engine this much slower than the faster one while warming up is not timed further.
HOPELESS = 1.3
# Of a call that does nothing, thousands fit into this.
NOOP_SECONDS = 0.02
# First calls take longer, so they must not decide which engine is faster.
LEAST_WARMUP = 2
CHECKED_IMAGES = 8
# Of each model in a round, if its calls are short.
TURNS = 4


@dataclass(frozen=True)
class TimingBudget:
    """How long each model is timed in all, over ``rounds`` turns.

    Attributes:
        warmup_batches: calls of each model in a round that are not counted; fewer if they take
            longer than the round's share of ``min_seconds``.
        min_seconds: seconds of timing at least.
        min_samples: timed calls at least, over all instances.
        rounds: how often the models take turns.
    """

    warmup_batches: int
    min_seconds: float
    min_samples: int
    rounds: int

    @property
    def warmup(self) -> int:
        """Calls that are not counted."""
        return max(self.warmup_batches, LEAST_WARMUP)

    @property
    def round_seconds(self) -> float:
        """Seconds of timing in a round."""
        return self.min_seconds / self.rounds


@dataclass(frozen=True)
class Measurement:
    """What one row of table II is made of.

    Attributes:
        samples: of each model that was not given up, the one that does nothing among them.
        observed: what happened on the cores meanwhile.
        scores: of the INT8 model for a few fixed images, [images][classes].
    """

    samples: Sequence[Samples]
    observed: Observation
    scores: Sequence[Sequence[float]]


def measure(
    candidates: Sequence[Candidate],
    setting: BenchmarkSetting,
    effort: TimingBudget,
    *,
    isa: str,
    events: Events,
) -> Measurement | None:
    """Time models in alternating rounds.

    Args:
        candidates: one or two FP32 ones, the INT8 one, and INT8 ones of other engines.
        setting: batch size, threads, instances and the rest.
        effort: for how long.
        isa: instruction set that the INT8 model really executes under the setting's cap.
        events: told after each round.

    Returns:
        None when the job was asked to stop.

    Raises:
        MachineError: more threads or instances are asked for than there are cores.
        QuantizationError: a model cannot be timed.
    """
    cpu_pinning.check([setting])
    racing = [*candidates, Candidate(NOOP, Path(NOOP))]
    rounds: list[Round] = []
    for done in range(effort.rounds):
        one = run_round(racing, setting, effort, done, events)
        if one is None:
            return None
        rounds.append(one)
        racing = [candidate for candidate in racing if candidate.label in one.latencies]
        events.progress("benchmark", done + 1, effort.rounds, "rounds", str(setting))
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
    """What one round found.

    Attributes:
        latencies: milliseconds of each model, as [instance][call].
        peak_rss_bytes: of each model.
        observed: what happened on the cores while models were timed.
        scores: as in a measurement.
    """

    latencies: Mapping[str, Sequence[Sequence[float]]]
    peak_rss_bytes: Mapping[str, int]
    observed: Observation
    scores: Sequence[Sequence[float]]


def run_round(
    racing: Sequence[Candidate],
    setting: BenchmarkSetting,
    effort: TimingBudget,
    number: int,
    events: Events,
) -> Round | None:
    """Start every model, warm it up and time it; None when asked to stop.

    Args:
        racing: the models.
        setting: batch size, threads, instances and the rest.
        effort: for how long.
        number: of the round, from 0; the first one gives a hopeless FP32 engine up.
        events: asked whether to stop.
    """
    pinned = cpu_pinning.pinned(setting)
    with started(in_turn(racing, number), setting, pinned) as fleets:
        if number == 0:
            fleets = competitive(fleets, effort)
        else:
            warm_up(fleets, effort)
        before, used_before = cpu_counters.read(pinned), used(fleets)
        # Neither starting first nor being timed first goes to the same model always.
        latencies = timed(in_turn(fleets, number // 2), effort, events)
        if latencies is None:
            return None
        after, used_after = cpu_counters.read(pinned), used(fleets)
        observed = cpu_counters.between(
            before,
            after,
            cores=setting.cores,
            model_seconds=used_after[0] - used_before[0],
            preemptions=used_after[1] - used_before[1],
        )
        scores = {fleet.label: fleet for fleet in fleets}["int8"].scores(CHECKED_IMAGES)
        peaks = {fleet.label: fleet.peak_rss_bytes for fleet in fleets}
        return Round(latencies, peaks, observed, scores)


def in_turn(models: Sequence[T], number: int) -> Sequence[T]:
    """Turned about each time."""
    return models if number % 2 == 0 else models[::-1]


@contextmanager
def started(
    candidates: Sequence[Candidate], setting: BenchmarkSetting, pinned: Sequence[int]
) -> Iterator[list[InstanceGroup]]:
    """Every candidate's processes with their models loaded, one after another."""
    with ExitStack() as stack:
        fleets = []
        for candidate in candidates:
            fleets.append(InstanceGroup(candidate, setting, pinned))
            stack.callback(fleets[-1].close)
        for fleet in fleets:
            fleet.load()
        yield fleets


def warm_up(fleets: Sequence[InstanceGroup], effort: TimingBudget) -> dict[str, float]:
    """Call every model until it is as fast as it gets: milliseconds of the fastest calls."""
    return {
        fleet.label: fastest_call(fleet, effort.warmup, effort.round_seconds) for fleet in fleets
    }


def competitive(fleets: Sequence[InstanceGroup], effort: TimingBudget) -> list[InstanceGroup]:
    """Warm all models up, and end the processes of an FP32 engine that is hopelessly slow."""
    fastest = warm_up(fleets, effort)
    if not fastest.keys() >= set(FP32):
        return list(fleets)
    for fleet in sorted(fleets, key=lambda fleet: fleet.label != ONEDNN):
        # A first call of many seconds was all the warm-up, and made oneDNN's primitives.
        if fleet.label == ONEDNN or (fleet.label == NATIVE and is_competitive(NATIVE, fastest)):
            fastest[fleet.label] = min(fastest[fleet.label], fastest_call(fleet, 1, 0.0))
    kept = [f for f in fleets if f.label not in FP32 or is_competitive(f.label, fastest)]
    for fleet in fleets:
        if fleet not in kept:
            fleet.close()
    return kept


def fastest_call(fleet: InstanceGroup, batches: int, limit: float) -> float:
    """Milliseconds of the fastest of some calls, at least one, that end after ``limit`` seconds."""
    return min(min(instance) for instance in fleet.time(0, batches, limit))


def is_competitive(label: str, fastest: Mapping[str, float]) -> bool:
    """Whether an FP32 engine may still be the faster one.

    Args:
        label: the engine.
        fastest: milliseconds of each model's fastest call so far.
    """
    best = min(value for name, value in fastest.items() if name in FP32)
    return fastest[label] <= HOPELESS * best


def timed(
    fleets: Sequence[InstanceGroup], effort: TimingBudget, events: Events
) -> dict[str, list[list[float]]] | None:
    """Latencies of each model in one round, as [instance][call]; None when asked to stop.

    The models take short turns, so that what else the machine does for a moment meets all of them.
    """
    batches = math.ceil(effort.min_samples / effort.rounds / len(fleets[0].timers))
    latencies: dict[str, list[list[float]]] = {f.label: [[] for _ in f.timers] for f in fleets}
    for turn in range(TURNS):
        for fleet in in_turn(fleets, turn):
            least = NOOP_SECONDS if fleet.label == NOOP else math.inf
            seconds = min(effort.round_seconds, least)
            instances = latencies[fleet.label]
            missing = batches - min(map(len, instances))
            if missing <= 0 and min(map(sum, instances)) >= 1000 * seconds:
                continue
            found = fleet.time(seconds / TURNS, min(missing, math.ceil(batches / TURNS)))
            for calls, more in zip(instances, found, strict=True):
                calls += more
            if events.stopping:
                return None
    return latencies


def used(fleets: Sequence[InstanceGroup]) -> tuple[float, int]:
    """Processor seconds and preemptions of all timing processes so far."""
    timers = [timer for fleet in fleets for timer in fleet.timers]
    return sum(t.cpu_seconds for t in timers), sum(t.preemptions for t in timers)
