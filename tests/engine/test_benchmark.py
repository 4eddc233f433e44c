import os

import pytest
import tiny

from job import benchmark
from job.engine.baseline import export
from job.errors import MachineError, QuantizationError

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    session = tiny.open_tiny()
    export(session, folder)
    fp32 = folder / "model"
    (folder / "int8").mkdir()
    tiny.quantize(session, folder / "int8")
    return fp32, folder / "int8/model"


def measure(candidates, threads=1, rounds=2):
    setting = benchmark.Setting(4, threads, tiny.SHAPE)
    found = benchmark.measure(
        candidates,
        setting,
        warmup_batches=2,
        min_seconds=0.1,
        rounds=rounds,
        events=tiny.News(),
    )
    return setting, found


def test_rounds_and_row(models):
    fp32, int8 = models
    candidates = [
        benchmark.Candidate("native", fp32),
        benchmark.Candidate("onednn", fp32),
        benchmark.Candidate("int8", int8),
    ]
    setting, samples = measure(candidates)
    assert samples[-1].label == "int8"
    assert {one.label for one in samples} <= {"native", "onednn", "int8"}
    for one in samples:
        assert len(one.rounds) == 2
        assert all(len(r) >= benchmark.MIN_BATCHES_A_ROUND for r in one.rounds)
        assert one.peak_rss_bytes > 10_000_000
    row = benchmark.row(samples, setting, "avx512_core_vnni")
    assert row["fp32"]["engine"] in ("native", "onednn")
    assert row["ratio"] > 0


def test_more_threads_than_cores_are_refused(models):
    count = len(os.sched_getaffinity(0)) + 1
    with pytest.raises(MachineError, match=f"{count} threads asked for, {count - 1} cores usable"):
        measure([benchmark.Candidate("native", models[0])], threads=count)


def test_model_that_is_missing_is_named(tmp_path):
    with pytest.raises(QuantizationError, match="timing the native model ended with code 1"):
        measure([benchmark.Candidate("native", tmp_path / "nowhere")])


def test_timing_process_that_dies_is_named(models):
    timer = benchmark.Timer(
        benchmark.Candidate("native", models[0]), benchmark.Setting(1, 1, tiny.SHAPE), [0]
    )
    try:
        timer.read()
        timer.process.kill()
        timer.process.wait()
        with pytest.raises(QuantizationError, match="timing the native model ended with code -9"):
            timer.time(0, 1)
    finally:
        timer.close()
