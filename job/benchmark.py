"""Interleaved timing: each model in processes of its own, their rounds alternating.

The models rest while another is timed, so a machine that drifts, throttles or has a busy neighbour
hits all of them alike; the ratio is taken per round.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from job import cores, counters
from job.events import Events
from job.host import read_host
from job.samples import Conditions, Samples, Setting
from job.stability import Observation
from job.timing_process import Candidate, Fleet

NATIVE, ONEDNN = FP32 = ("native", "onednn")
NOTHING = "nothing"
# An FP32 engine this much slower than the faster one while warming up is not timed further.
HOPELESS = 1.3
# Of a call that does nothing, thousands fit into this.
NOTHING_SECONDS = 0.02
# First calls take longer, so they must not decide which engine is faster.
LEAST_WARMUP = 2
CHECKED_IMAGES = 8


@dataclass(frozen=True)
class Effort:
    """How long each model is timed in all, over ``rounds`` turns.

    Attributes:
        warmup_batches: calls of each model that are not counted; fewer if they take longer than
            ``min_seconds``.
        min_seconds: seconds of timing at least.
        min_samples: timed calls at least, over all instances.
        rounds: how often the models take turns.
    """

    warmup_batches: int
    min_seconds: float
    min_samples: int
    rounds: int


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
    setting: Setting,
    effort: Effort,
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
    cores.check([setting])
    pinned = cores.pinned(setting)
    nothing = Candidate(NOTHING, Path(NOTHING))
    with started([*candidates, nothing], setting, pinned) as all_fleets:
        fleets = competitive(all_fleets, effort)
        before, used_before = counters.read(pinned), used(fleets)
        rounds = timed(fleets, effort, str(setting), events)
        if rounds is None:
            return None
        after, used_after = counters.read(pinned), used(fleets)
        observed = counters.between(
            before,
            after,
            cores=setting.cores,
            model_seconds=used_after[0] - used_before[0],
            preemptions=used_after[1] - used_before[1],
        )
        conditions = Conditions(read_host().as_report(), isa, setting)
        scores = {fleet.label: fleet for fleet in fleets}["int8"].scores(CHECKED_IMAGES)
        samples = [
            Samples(fleet.label, rounds[fleet.label], fleet.peak_rss_bytes, conditions)
            for fleet in fleets
        ]
        return Measurement(samples, observed, scores)


@contextmanager
def started(
    candidates: Sequence[Candidate], setting: Setting, pinned: Sequence[int]
) -> Iterator[list[Fleet]]:
    """Every candidate's processes with their models loaded."""
    with ExitStack() as stack:
        fleets = []
        for candidate in candidates:
            fleets.append(Fleet(candidate, setting, pinned))
            stack.callback(fleets[-1].close)
        yield fleets


def competitive(fleets: Sequence[Fleet], effort: Effort) -> list[Fleet]:
    """Warm all models up, and end the processes of an FP32 engine that is hopelessly slow."""
    batches = max(effort.warmup_batches, LEAST_WARMUP)
    fastest = {fleet.label: fastest_call(fleet, batches, effort.min_seconds) for fleet in fleets}
    for fleet in sorted(fleets, key=lambda fleet: fleet.label != ONEDNN):
        # A first call of many seconds was all the warm-up, and made oneDNN's primitives.
        if fleet.label == ONEDNN or (fleet.label == NATIVE and is_competitive(NATIVE, fastest)):
            fastest[fleet.label] = min(fastest[fleet.label], fastest_call(fleet, 1, 0.0))
    kept = [f for f in fleets if f.label not in FP32 or is_competitive(f.label, fastest)]
    for fleet in fleets:
        if fleet not in kept:
            fleet.close()
    return kept


def fastest_call(fleet: Fleet, batches: int, limit: float) -> float:
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
    fleets: Sequence[Fleet], effort: Effort, what: str, events: Events
) -> dict[str, list[list[list[float]]]] | None:
    """Latencies of each model, as [round][instance][call]; None when asked to stop."""
    instances = len(fleets[0].timers)
    batches = math.ceil(effort.min_samples / effort.rounds / instances)
    seconds = effort.min_seconds / effort.rounds
    latencies: dict[str, list[list[list[float]]]] = {fleet.label: [] for fleet in fleets}
    for done in range(effort.rounds):
        # Turned about each round, so that no model always runs after the same one.
        for fleet in fleets if done % 2 == 0 else reversed(fleets):
            least = min(seconds, NOTHING_SECONDS) if fleet.label == NOTHING else seconds
            latencies[fleet.label].append(fleet.time(least, batches))
            if events.stopping:
                return None
        events.progress("benchmark", done + 1, effort.rounds, "rounds", what)
    return latencies


def used(fleets: Sequence[Fleet]) -> tuple[float, int]:
    """Processor seconds and preemptions of all timing processes so far."""
    timers = [timer for fleet in fleets for timer in fleet.timers]
    return sum(t.cpu_seconds for t in timers), sum(t.preemptions for t in timers)
