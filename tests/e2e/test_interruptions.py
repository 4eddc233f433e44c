"""Kill -9, SIGTERM and Ctrl-C, and the same command again."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import Run, job, resumed_step, same_arrays, start, wait_until

pytestmark = pytest.mark.e2e


def checkpoint(output: Path, stage: str, step: int) -> Callable[[], bool]:
    """Whether a checkpoint of ``step`` or later is there."""
    folder = output / f".partial/{stage}/checkpoints"

    def reached() -> bool:
        return any(int(path.stem.split("-")[1]) >= step for path in folder.glob("step-*.npz"))

    return reached


def steps(path: Path) -> list[int]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


def reason(run: Run, stage: str, *arguments: str) -> str:
    """Why the plan runs a stage; a stage that is resumed has a longer reason."""
    plan = job("run", "m.json", *arguments, "--dry-run", "--log-format", "json", cwd=run.folder)
    stages = {each["stage"]: each for each in map(json.loads, plan.out.splitlines())}
    assert stages[stage]["action"] == "run"
    return str(stages[stage]["reason"])


def kill_when(happened: Callable[[], bool], run: Run, *arguments: str) -> None:
    """Start the run, kill -9 it when something happens, and see that all of it is gone."""
    process = start("run", "m.json", *arguments, cwd=run.folder, err=run.folder / "err.txt")
    try:
        wait_until(happened, process)
    finally:
        process.kill()
        process.wait()


def read_all_checkpoints(output: Path) -> None:
    """Each file under its final name is whole."""
    import numpy as np

    for path in output.rglob("*.npz"):
        with np.load(path) as archive:
            assert all(archive[name] is not None for name in archive.files)


class TestKilled:
    def test_baseline(self, finished: Run, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data")
        log, first = run.output / "logs/baseline.log", reason(run, "baseline")
        kill_when(log.exists, run, "--until", "baseline")
        for step in (2, 9, 16):
            kill_when(checkpoint(run.output, "baseline", step), run, "--until", "baseline")
            read_all_checkpoints(run.output)
            assert not (run.output / "fp32").exists()
        assert len(reason(run, "baseline")) > len(first)
        done = job("run", "m.json", "--until", "baseline", cwd=run.folder)
        assert resumed_step("baseline", done.err) >= 16
        assert same_arrays(run.output / "fp32/weights.npz", finished.output / "fp32/weights.npz")
        assert steps(run.output / "fp32/metrics.jsonl") == list(range(1, 21))

    def test_qat(self, finished: Run, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data", "fp32")
        for step in (1, 4):
            kill_when(checkpoint(run.output, "qat", step), run, "--until", "qat")
            read_all_checkpoints(run.output)
        done = job("run", "m.json", "--until", "qat", cwd=run.folder)
        assert resumed_step("qat", done.err) >= 4
        assert same_arrays(run.output / "qat/best.npz", finished.output / "qat/best.npz")
        assert steps(run.output / "qat/metrics.jsonl") == list(range(1, 7))


class TestAskedToStop:
    def test_sigterm(self, finished: Run, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data")
        # No checkpoint but the one that is made because of the signal.
        rare = ("--set", "baseline.train.checkpoint_seconds=1000", "--until", "baseline")
        first = reason(run, "baseline", *rare)
        metrics = run.output / ".partial/baseline/metrics.jsonl"
        process = start("run", "m.json", *rare, cwd=run.folder, err=run.folder / "err.txt")
        wait_until(lambda: metrics.exists() and metrics.read_text().count("loss") > 1, process)
        process.terminate()
        assert process.wait(60) == 143
        said = (run.folder / "err.txt").read_text()
        assert re.search(r"^error: .*SIGTERM.*baseline", said, re.MULTILINE)
        assert len(reason(run, "baseline", *rare)) > len(first)
        again = job("run", "m.json", *rare, cwd=run.folder)
        assert resumed_step("baseline", again.err) >= 2
        assert same_arrays(run.output / "fp32/weights.npz", finished.output / "fp32/weights.npz")

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
