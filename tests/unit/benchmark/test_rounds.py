"""How rounds start and time processes, with models that only sleep.

``tests/engine/benchmark/test_benchmark.py`` times real models.
"""

import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_stages import Recorder

from job.benchmark import cpu_pinning, rounds
from job.benchmark.rows import row
from job.benchmark.samples import BenchmarkSetting
from job.benchmark.timer import Candidate, InstanceGroup

SETTING = BenchmarkSetting(4, 1, (1, 8, 8))
EFFORT = rounds.TimingBudget(warmup_batches=2, min_seconds=0.1, min_samples=7, rounds=2)
CORES = sorted(os.sched_getaffinity(0))
NATIVE, ONEDNN, INT8 = (Candidate(label, Path(label)) for label in ("native", "onednn", "int8"))


class Model:
    """Takes 4 ms for each call, which a busy machine delays less than a shorter call."""

    def set_images(self, images):
        self.images = images

    def run(self):
        time.sleep(0.004)

    def scores(self, images):
        return images.mean((2, 3))


@dataclass
class Events:
    """Events of a stage; ``stopping`` is the stop request."""

    stopping: bool = False
    recorder: Recorder = field(default_factory=Recorder)

    def progress(self, *values):
        self.recorder.progress("benchmark", *values)

    def message(self, *values):
        self.recorder.message("benchmark", *values)


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    """Put the model in place of Paddle, also in forked processes."""
    predictor = SimpleNamespace(
        Predictor=lambda _: Model(), configuration=lambda *_, **options: options
    )
    noop_model = SimpleNamespace(open_model=lambda *_: Model())
    monkeypatch.setitem(sys.modules, "job.engine.inference.predictor", predictor)
    monkeypatch.setitem(sys.modules, "job.engine", SimpleNamespace(noop_model=noop_model))


def measure(candidates, setting=SETTING, effort=EFFORT, events=None):
    events = events or Events()
    return rounds.measure(candidates, setting, effort, isa="avx512_core_vnni", events=events)


def test_rounds_and_row():
    # The fastest of many calls is the same for both FP32 engines, also on a busy machine.
    measured = measure(
        [NATIVE, ONEDNN, INT8], effort=replace(EFFORT, warmup_batches=40, min_seconds=0.5)
    )
    assert [one.label for one in measured.samples] == ["native", "onednn", "int8", "nothing"]
    for one in measured.samples:
        assert len(one.rounds) == 2
        assert len(one.all) >= 7
    assert row(measured)["int8"]["samples"] >= 7
    assert np.shape(measured.scores) == (4, 1)


def test_more_samples_than_fit_into_the_time():
    effort = replace(EFFORT, min_seconds=0.0, min_samples=41)
    counts = [len(one.all) for one in measure([ONEDNN, INT8], effort=effort).samples]
    assert counts == [42, 42, 42]  # 21 in each of two rounds


def test_each_round_starts_its_own_processes_in_turned_order(monkeypatch):
    started, timed = [], []

    class Watched(InstanceGroup):
        def __init__(self, candidate, *rest):
            super().__init__(candidate, *rest)
            started.append((candidate.label, self.timers[0].process.pid))

        def time(self, seconds, batches, limit=None):
            if limit is not None:  # a warm-up
                return super().time(seconds, batches, limit)
            timed.append(self.timers[0].process.pid)
            return super().time(seconds, batches)

    monkeypatch.setattr(rounds, "InstanceGroup", Watched)
    measure([ONEDNN, INT8], effort=replace(EFFORT, rounds=4, min_seconds=1.2))
    names = ["onednn", "int8", "nothing"]
    assert [label for label, _ in started] == [*names, *names[::-1]] * 2
    assert len({pid for _, pid in started}) == len(started)
    # Each combination of being started first or last and timed first or last, once.
    for number, first in enumerate([names, names[::-1], names[::-1], names]):
        labels = {pid: label for label, pid in started[3 * number : 3 * number + 3]}
        turns = [labels[pid] for pid in timed if pid in labels]
        assert turns[:6] == [*first, *first[::-1]]


def test_long_calls_take_one_turn(monkeypatch):
    calls = []

    class Slow(InstanceGroup):
        def time(self, seconds, batches, limit=None):
            calls.append((self.label, batches))
            return [[1000.0] * batches]

    monkeypatch.setattr(rounds, "InstanceGroup", Slow)
    effort = rounds.TimingBudget(0, min_seconds=1.0, min_samples=1, rounds=1)
    measure([INT8], effort=effort)
    assert calls[-2:] == [("int8", 1), ("nothing", 1)]
    calls.clear()
    measure([INT8], effort=replace(effort, min_samples=6))
    assert [batches for label, batches in calls if label == "int8"][1:] == [2, 2, 2]


@pytest.mark.parametrize(("milliseconds", "kept"), [(0.8, True), (1.2, True), (2.0, False)])
def test_fp32_in_another_engine_is_dropped_if_it_is_not_faster(milliseconds, kept):
    class Group(SimpleNamespace):
        closed = False

        def time(self, seconds, batches, limit):
            return [[self.milliseconds]]

        def close(self):
            self.closed = True

    other = Group(label=rounds.ENGINE_FP32, milliseconds=milliseconds)
    groups = [Group(label="onednn", milliseconds=1.0), Group(label="int8", milliseconds=0.5), other]
    found = rounds.competitive(groups, EFFORT)
    assert (other in found, other.closed) == (kept, not kept)
    assert found[:2] == groups[:2]


def test_asked_to_stop():
    assert measure([INT8], events=Events(stopping=True)) is None


def test_throughput_row(monkeypatch):
    # On a machine with one core they share it: this is about the figures.
    monkeypatch.setattr(cpu_pinning, "usable_cores", lambda: 2)
    monkeypatch.setattr(cpu_pinning, "pinned", lambda setting: (CORES * 2)[: setting.cores])
    measured = measure([ONEDNN, INT8], replace(SETTING, instances=2))
    found = row(measured)
    assert (found["scenario"], found["instances"], found["threads"]) == ("throughput", 2, 1)
    int8 = next(one for one in measured.samples if one.label == "int8")
    assert [len(one) for one in int8.rounds] == [2, 2]
    assert found["int8"]["samples"] == len(int8.all) >= 7
