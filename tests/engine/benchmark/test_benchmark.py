import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tiny

from job.benchmark import rounds, timer_main
from job.benchmark.rows import row
from job.benchmark.samples import BenchmarkSetting, Samples
from job.benchmark.stability import Observation
from job.benchmark.timer import Candidate, Timer
from job.engine.training.baseline import export
from job.errors import DataError, MachineError, QuantizationError
from job.manifest import parse
from job.profile import onednn_log, record_main
from job.profile import record as record_
from job.report.render import schema_check
from job.stages import benchmark as stage
from job.stages.stage import StageOutput

pytestmark = pytest.mark.engine

SETTING = BenchmarkSetting(4, 1, tiny.SHAPE)
BUDGET = rounds.TimingBudget(warmup_batches=2, min_seconds=0.1, min_samples=7, rounds=2)
CORES = sorted(os.sched_getaffinity(0))
several_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    session = tiny.open_tiny()
    export(session, folder)
    (folder / "int8").mkdir()
    tiny.quantize(session, folder / "int8")
    return folder / "model", folder / "int8/model"


def candidates(models):
    fp32, int8 = models
    return [Candidate("native", fp32), Candidate("onednn", fp32), Candidate("int8", int8)]


def measure(candidates_, setting=SETTING, budget=BUDGET, news=None):
    events = news or tiny.News()
    return rounds.measure(candidates_, setting, budget, isa="avx512_core_vnni", events=events)


def test_rounds_and_row(models):
    measured = measure(candidates(models))
    labels = [one.label for one in measured.samples]
    assert labels[-2:] == ["int8", "nothing"]
    assert set(labels) <= {"native", "onednn", "int8", "nothing"}
    for one in measured.samples:
        assert len(one.rounds) == 2
        assert len(one.all) >= 7
        assert one.peak_rss_bytes > 10_000_000
    figures = row(measured)
    assert figures["harness_ms"] < figures["int8"]["latency_ms"]["p50"]
    assert measured.observed.seconds > 0.2
    assert measured.observed.own_seconds > 0.01
    images = np.random.default_rng(0).standard_normal((4, *tiny.SHAPE)).astype("float32")
    np.testing.assert_array_equal(
        np.asarray(measured.scores, "float32"), tiny.scores(models[1], "int8", images)
    )


def test_what_lies_in_the_current_directory_is_not_run(models, tmp_path, monkeypatch):
    for name in ("job.py", "json.py", "select.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    with rounds.started([Candidate("int8", models[1])], SETTING, CORES[:1]):
        pass
    assert record_.trace(models[1], "int8", tiny.SHAPE)


def test_a_log_that_the_user_asked_onednn_for_does_not_slow_the_calls(models, monkeypatch, capfd):
    monkeypatch.setenv("ONEDNN_VERBOSE", "1")
    with rounds.started([Candidate("int8", models[1])], SETTING, CORES[:1]) as (group,):
        group.time(0, 3)
    assert "onednn_verbose" not in "".join(capfd.readouterr())


def test_native_kernels_that_were_too_slow_are_not_tried_at_a_larger_batch(tmp_path, monkeypatch):
    raced = []

    def slow_native(candidates_, setting, *_, isa, events):
        raced.append((setting.batch_size, setting.threads, candidates_[0].label))
        samples = [Samples("onednn", [], 0, None)]
        return rounds.Measurement(samples, Observation(1.0, 1), [[0.0]])

    monkeypatch.setattr(stage, "measure", slow_native)
    monkeypatch.setattr(stage, "row", lambda *_: {})
    monkeypatch.setattr(stage, "executed_isa", lambda *_: "avx2")
    monkeypatch.setattr(stage.cpu_pinning, "check", lambda _: None)
    monkeypatch.setattr(stage, "breakdowns", lambda *_: [])
    run_stage((tmp_path / "x", tmp_path / "y"), tmp_path, batch_sizes=[8, 2, 16], threads=[1, 2])
    assert raced == [
        (8, 1, "native"), (2, 1, "native"), (16, 1, "onednn"),
        (8, 2, "native"), (2, 2, "native"), (16, 2, "onednn"),
    ]  # fmt: skip


@several_cores
def test_instances_run_at_the_same_time_on_cores_of_their_own(models):
    setting = replace(SETTING, instances=2)
    with rounds.started([Candidate("int8", models[1])], setting, CORES[:2]) as (group,):
        assert [os.sched_getaffinity(t.process.pid) for t in group.timers] == [
            {core} for core in CORES[:2]
        ]
        for timer, core in zip(group.timers, CORES, strict=False):
            for thread in Path(f"/proc/{timer.process.pid}/task").iterdir():
                assert os.sched_getaffinity(int(thread.name)) == {core}
        before = [timer.cpu_seconds for timer in group.timers]
        pids = [timer.process.pid for timer in group.timers]
        for pid in pids:
            wait_for_state("T", pid)
        with ThreadPoolExecutor(1) as pool:
            measuring = pool.submit(group.time, 0.5, 3)
            # One after the other, the second would rest while the first measures.
            while not all(state_of(pid) != "T" for pid in pids):
                assert not measuring.done()
            latencies = measuring.result()
        assert all(sum(calls) > 450 and len(calls) >= 3 for calls in latencies)
        for timer, used in zip(group.timers, before, strict=True):
            assert timer.cpu_seconds > used


def test_a_resting_process_uses_no_time(models):
    with rounds.started([Candidate("onednn", models[0])], SETTING, CORES[:1]) as (group,):
        group.time(0, 3)
        wait_for_state("T", group.timers[0].process.pid)
        assert len(group.time(0, 3)[0]) == 3


def test_long_calls_end_the_warm_up(models):
    with rounds.started([Candidate("onednn", models[0])], SETTING, CORES[:1]) as (group,):
        assert len(group.time(0, 10**9, limit=0.0)[0]) == 1
        assert sum(group.time(0, 10**9, limit=0.05)[0]) < 10_000


def test_more_threads_than_cores_are_refused(models):
    count = len(CORES) + 1
    with pytest.raises(MachineError, match=rf"/benchmark/threads: .*{count}.*{count - 1}"):
        measure(candidates(models), replace(SETTING, threads=count))


def test_model_that_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.pdmodel"):
        measure([Candidate("native", tmp_path / "nowhere")])


def test_timing_process_that_dies_is_named(models):
    timer = Timer(Candidate("native", models[0]), SETTING, CORES[:1])
    try:
        timer.send("load")
        timer.read()
        timer.process.kill()
        timer.process.wait()
        timer.send("time", seconds=0, batches=1, limit=1, start_ns=0, keep_busy=False)
        with pytest.raises(QuantizationError, match=r"native model .*SIGKILL"):
            timer.read()
    finally:
        timer.close()


PARENT = """
import os, sys, time
from pathlib import Path
from job.benchmark.samples import BenchmarkSetting
from job.benchmark.timer import Candidate, InstanceGroup
cores = sorted(os.sched_getaffinity(0))
setting = BenchmarkSetting(1, 1, (1, 8, 8))
group = InstanceGroup(Candidate("nothing", Path("x")), setting, cores[:1])
group.load()
print(group.timers[0].process.pid, flush=True)
time.sleep(60)
"""


def test_timing_processes_die_with_their_parent():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for_state("Z", child)


def wait_for_state(wanted: str, pid: int) -> None:
    """Wait until a process is stopped (T) or ended (Z), as the kernel names it."""
    deadline = time.monotonic() + 60
    while state_of(pid) != wanted:
        assert time.monotonic() < deadline, state_of(pid)
        time.sleep(0.01)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.parametrize("module", [timer_main, record_main])
def test_engine_processes_end_where_their_parent_is_gone(module):
    done = subprocess.run(
        [sys.executable, "-m", module.__name__, "0", "1"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (1, "")


def test_isa_cap_reaches_the_kernels(models):
    ran = record_.trace(models[1], "int8", tiny.SHAPE, isa_cap="avx2")
    assert onednn_log.isa(ran) == "avx2"


def run_stage(models: tuple[Path, Path], out: Path, **settings: object) -> Mapping[str, object]:
    document_ = {
        "version": 1,
        "name": "tiny",
        "model": {"name": "convnet", "classes": 10, "input_shape": list(tiny.SHAPE)},
        "data": {"format": "digits", "mean": [0.5], "std": [0.5]},
        "benchmark": {"batch_sizes": [2], "min_seconds": 0.05, "rounds": 2, **settings},
    }
    manifest = parse(document_, "test", out)
    inputs = {
        "baseline": StageOutput(models[0].parent, {}),
        "int8": StageOutput(models[1].parent, {"isa": {"int8": "avx2"}}),
    }
    return stage.run(manifest, inputs, out, tiny.News())


@pytest.mark.full
def test_rows_of_every_cap_follow_the_reports_schema(models, tmp_path):
    rows = run_stage(models, tmp_path, isa=["all", "avx2"], rounds=1)["rows"]
    whole = schema_check.schema()
    schema = {"$defs": whole["$defs"], **whole["properties"]["benchmark"]}
    jsonschema.validate(json.loads(json.dumps(rows)), schema)
    assert [(figures["isa_cap"], figures["batch_size"]) for figures in rows] == [
        ("all", 2),
        ("avx2", 2),
    ]
    assert rows[1]["isa"] == "avx2"
    assert rows[0]["score_difference"] is None
    assert rows[1]["score_difference"] >= 0
    raw = json.loads((tmp_path / "samples.json").read_text())
    assert [one["samples"][0]["conditions"]["setting"]["isa_cap"] for one in raw] == ["all", "avx2"]


def test_stage_refuses_too_many_instances_before_it_measures(models, tmp_path):
    count = len(CORES) + 1
    with pytest.raises(MachineError, match=f"/benchmark/instances: .*{count}"):
        run_stage(models, tmp_path, instances=[count])
