"""Stability checks, on plain numbers and on made-up kernel files."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.benchmark import cpu_counters, stability
from job.benchmark.stability import Observation, drift

QUIET = Observation(seconds=10, cores=2, busy_seconds=20.3, own_seconds=19.9, preemptions=60)
STEADY = {"fp32": [10.0, 10.1, 9.9], "int8": [30.0, 30.2, 29.9]}


def reasons(observed=QUIET, rates=STEADY, ratio=3.0, interval=(2.9, 3.1)):
    return stability.reasons(observed, rates, ratio, interval)


def test_a_quiet_machine_is_stable():
    assert reasons() == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"throttled_periods": 3, "throttled_seconds": 0.21}, ["CPU limit", "3 times", "0.21 s"]),
        ({"steal_seconds": 1.0}, ["hypervisor", "5%"]),
        ({"busy_seconds": 21.9}, ["other processes", "10%"]),
        ({"preemptions": 2000}, ["other processes", "100 times a second"]),
        ({"sibling_seconds": 5.0}, ["hyperthread", "50%"]),
    ],
)
def test_each_disturbance_is_named_with_what_to_do(changes, words):
    (reason,) = reasons(replace(QUIET, **changes))
    assert [word for word in words if word not in reason.what] == []
    assert reason.advice.endswith(".")


def test_what_happened_over_several_rounds_adds_up():
    both = stability.together([QUIET, replace(QUIET, seconds=5, throttled_periods=2)])
    assert both == replace(
        QUIET, seconds=15, busy_seconds=40.6, own_seconds=39.8, preemptions=120,
        throttled_periods=2,
    )  # fmt: skip


def test_other_processes_are_named_once():
    (reason,) = reasons(replace(QUIET, busy_seconds=25.0, preemptions=5000))
    assert "26%" in reason.what


def test_the_kernels_coarse_clock_is_ignored_in_short_measurements():
    moment = Observation(seconds=0.1, cores=1, busy_seconds=0.12, own_seconds=0.1, preemptions=9)
    assert reasons(moment) == ()


def test_a_wide_interval_is_unstable():
    (reason,) = reasons(interval=(2.7, 3.3))
    assert "20%" in reason.what
    assert "benchmark.rounds" in reason.advice


def test_a_drift_of_all_models_is_unstable():
    slower = {name: [rate, rate * 0.93, rate * 0.86] for name, rate in (("a", 1), ("b", 9))}
    (reason,) = reasons(rates=slower)
    assert "14% slower" in reason.what


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"a": [1.0], "b": [2.0]}, 0.0),
        ({"a": [1.0, 1.2], "b": [2.0, 2.3]}, 0.15),
        ({"a": [1.0, 1.2], "b": [2.0, 1.6]}, 0.0),
        ({"a": [1.0, 1.0, 0.5], "b": [2.0, 9.0, 1.6]}, -0.2),
        ({"a": [1.0, 1.0, 5, 5, 2.0, 2.0]}, 1.0),
    ],
)
def test_drift_is_that_of_the_model_that_changed_least(rates, expected):
    assert drift(rates) == pytest.approx(expected)


speeds = st.lists(st.floats(1, 100), min_size=2, max_size=9)


@given(speeds, st.floats(0.1, 10))
def test_drift_does_not_depend_on_how_fast_a_model_is(rates, factor):
    scaled = [rate * factor for rate in rates]
    assert drift({"a": rates, "b": scaled}) == pytest.approx(drift({"a": rates}), abs=1e-9)


@given(speeds)
def test_drift_backwards_is_the_inverse(rates):
    forwards, backwards = (math.log1p(drift({"a": one})) for one in (rates, rates[::-1]))
    assert forwards == pytest.approx(-backwards, abs=1e-9)


# kernel files


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def kernel(root, busy, steal, throttled):
    """A machine whose cores 0 to 2 share a physical core; clock ticks, microseconds."""
    ticks = f"{busy} 0 0 1000 50 0 0 {steal} 0 0"
    write(root, "proc/stat", f"cpu  9 9 9\ncpu0 {ticks}\ncpu1 40 2 3 0 0 1 4 0\ncpu2 {busy} 0 0\n")
    write(root, "proc/self/cgroup", "0::/\n")
    write(root, "sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-2\n")
    write(
        root,
        "sys/fs/cgroup/cpu.stat",
        f"usage_usec 1\nnr_throttled {throttled}\nthrottled_usec {throttled * 20000}\n",
    )


def test_counters_are_read_and_subtracted(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_counters.os, "sysconf", lambda name: 100)
    kernel(tmp_path, busy=500, steal=10, throttled=2)
    before = cpu_counters.read([0], tmp_path)
    assert (before.busy, before.steal) == (5.0, 0.1)
    assert before.sibling_busy == (0.5, 5.0)
    kernel(tmp_path, busy=700, steal=30, throttled=5)
    after = replace(cpu_counters.read([0], tmp_path), at=before.at + 4, own_seconds=1.5)
    before = replace(before, own_seconds=1.0)
    observed = cpu_counters.between(before, after, cores=1, model_seconds=1.25, preemptions=7)
    assert observed == Observation(
        seconds=pytest.approx(4),
        cores=1,
        busy_seconds=pytest.approx(2),
        own_seconds=pytest.approx(1.75),
        sibling_seconds=pytest.approx(2),
        steal_seconds=pytest.approx(0.2),
        throttled_periods=3,
        throttled_seconds=pytest.approx(0.06),
        preemptions=7,
    )


def test_this_machines_counters_grow():
    core = min(cpu_counters.os.sched_getaffinity(0))
    before = cpu_counters.read([core])
    after = cpu_counters.read([core])
    assert after.at > before.at
    assert after.busy >= before.busy > 0
