"""Kill -9, SIGTERM and Ctrl-C, and the same command again."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import Run, job, resumed_step, same_arrays, start, wait_for_workers, wait_until
from watching import found_in, text_of

from job.pipeline.plan import RESUMES

pytestmark = pytest.mark.e2e


def checkpoint(output: Path, stage: str, step: int) -> Callable[[], bool]:
    """Whether a checkpoint of ``step`` or later is there."""
    folder = output / f".partial/{stage}/checkpoints"

    def reached() -> bool:
        files = found_in(folder, "step-*.npz")
        return any(int(path.stem.split("-")[1]) >= step for path in files)

    return reached


def steps(path: Path) -> list[int]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


def is_resumed(run: Run, stage: str, *arguments: str) -> bool:
    """Whether the plan runs a stage from unfinished work."""
    plan = job("run", "m.json", *arguments, "--dry-run", "--log-format", "json", cwd=run.folder)
    stages = {each["stage"]: each for each in map(json.loads, plan.out.splitlines())}
    assert stages[stage]["action"] == "run"
    return str(stages[stage]["reason"]).endswith(RESUMES)


def kill_when(happened: Callable[[], bool], run: Run, *arguments: str) -> None:
    """Start the run, send SIGKILL at an event, and check that all its processes ended."""
    process = start("run", "m.json", *arguments, cwd=run.folder, err=run.folder / "err.txt")
    try:
        wait_until(happened, process)
    finally:
        process.kill()
        process.wait()
        wait_for_workers(run.output)


def read_all_checkpoints(output: Path) -> None:
    """Each file under its final name is whole."""
    import numpy as np

    for path in output.rglob("*.npz"):
        with np.load(path) as archive:
            assert all(archive[name] is not None for name in archive.files)


class TestKilled:
    @pytest.mark.full
    def test_baseline(self, trained: Run, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data")
        log = run.output / "logs/baseline.log"
        kill_when(log.exists, run, "--until", "baseline")
        for step in (2, 9, 16):
            kill_when(checkpoint(run.output, "baseline", step), run, "--until", "baseline")
            read_all_checkpoints(run.output)
            assert not (run.output / "fp32").exists()
        assert is_resumed(run, "baseline")
        done = job("run", "m.json", "--until", "baseline", cwd=run.folder)
        assert resumed_step("baseline", done.err) >= 16
        assert same_arrays(run.output / "fp32/weights.npz", trained.output / "fp32/weights.npz")
        assert steps(run.output / "fp32/metrics.jsonl") == list(range(1, 21))

    def test_qat(self, trained: Run, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data", "fp32", "calibrated")
        for step in (1, 4):
            kill_when(checkpoint(run.output, "qat", step), run, "--until", "qat")
            read_all_checkpoints(run.output)
        done = job("run", "m.json", "--until", "qat", cwd=run.folder)
        assert resumed_step("qat", done.err) >= 4
        assert same_arrays(run.output / "qat/best.npz", trained.output / "qat/best.npz")
        assert steps(run.output / "qat/metrics.jsonl") == list(range(1, 7))


class TestAskedToStop:
    def test_sigterm(self, trained: Run, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data")
        # No checkpoint but the one that is made because of the signal.
        rare = ("--set", "baseline.train.checkpoint_seconds=1000", "--until", "baseline")
        metrics = run.output / ".partial/baseline/metrics.jsonl"
        process = start("run", "m.json", *rare, cwd=run.folder, err=run.folder / "err.txt")
        wait_until(lambda: text_of(metrics).count("loss") > 1, process)
        process.terminate()
        assert process.wait(60) == 143
        said = (run.folder / "err.txt").read_text()
        assert re.search(r"^error: .*SIGTERM.*baseline", said, re.MULTILINE)
        assert is_resumed(run, "baseline", *rare)
        again = job("run", "m.json", *rare, cwd=run.folder)
        assert resumed_step("baseline", again.err) >= 2
        assert same_arrays(run.output / "fp32/weights.npz", trained.output / "fp32/weights.npz")

    @pytest.mark.full
    def test_ctrl_c(self, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data")
        process = start("run", "m.json", cwd=run.folder, err=run.folder / "err.txt")
        wait_until((run.output / "logs/baseline.log").exists, process)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        said = (run.folder / "err.txt").read_text()
        assert "SIGINT" in said
        assert "Traceback" not in said
