"""Quantization-aware training by two processes: the losses of one; nobody waits for the dead."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ranks import TOGETHER, finish, launch, start_ranks
from tiny_run import Run, arrays, job, record_of, resumed_step, run_json, wait_until
from watching import text_of

pytestmark = pytest.mark.e2e

UNTIL_QAT = (*TOGETHER, "--until", "qat")
# Long enough to be interrupted, on any machine.
LONG = ("--set", "train.max_iters=20000", "--set", "train.evaluations_per_epoch=1")
RARE = ("--set", "train.checkpoint_seconds=1000")
# For another order of sums: losses are 1.1 to 1.5, in six decimals, of which the last one differed.
TOLERANCE = 5e-6

CopyUntil = Callable[..., Run]


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def begun(run: Run, steps: int = 3) -> Callable[[], bool]:
    """Whether so many steps of qat are done."""
    metrics = run.output / ".partial/qat/metrics.jsonl"
    return lambda: text_of(metrics).count("loss") >= steps


@pytest.mark.full
def test_two_processes_give_the_losses_of_one(
    copy_until: CopyUntil, tell: Callable[[str], None]
) -> None:
    run = copy_until("data", "fp32", "calibrated")
    job("run", "m.json", *UNTIL_QAT, cwd=run.folder)
    alone = (run.output / "qat").rename(run.folder / "alone")
    process = launch(run, *UNTIL_QAT)
    said = finish(process)
    assert process.returncode == 0, said
    together = run.output / "qat"
    assert len(losses(alone)) == 6
    apart = np.abs(np.subtract(losses(together), losses(alone))).max()
    tell(f"losses of two processes and of one are {apart:.6f} apart")
    assert apart <= TOLERANCE
    found, expected = arrays(together / "best.npz"), arrays(alone / "best.npz")
    assert found.keys() == expected.keys()
    ours, theirs = (json.loads(each.pop("evaluation").tobytes()) for each in (found, expected))
    assert ours["step"] == theirs["step"]
    assert ours["values"] == pytest.approx(theirs["values"], rel=TOLERANCE, abs=TOLERANCE)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, TOLERANCE, TOLERANCE, err_msg=name)
    assert record_of(run.output, "qat")["training"]["steps"] == 6
    others = (run.folder / "log/workerlog.1").read_text()
    assert "rank 1 of 2" in others
    # How many train is no reason to train again.
    assert "qat" in run_json(run.folder, *UNTIL_QAT).of("stage_reused")


@pytest.mark.full
def test_sigterm_to_the_launcher_and_one_process_goes_on(copy_until: CopyUntil) -> None:
    run = copy_until("data", "fp32", "calibrated")
    process = launch(run, *UNTIL_QAT, *LONG, *RARE)
    wait_until(begun(run), process)
    process.terminate()
    finish(process)
    for rank in (0, 1):
        said = (run.folder / f"log/workerlog.{rank}").read_text()
        assert "SIGTERM" in said
        assert "Traceback" not in said
    before = losses(run.output / ".partial/qat")
    (checkpoint,) = (run.output / ".partial/qat/checkpoints").glob("step-*.npz")
    assert checkpoint.stem == f"step-{len(before):09d}"
    again = start_ranks(run, *UNTIL_QAT, *LONG, *RARE, size=1)[0]
    wait_until(begun(run, len(before) + 3), again)
    again.terminate()
    assert again.wait(60) == 143
    assert resumed_step("qat", (run.folder / "rank0.txt").read_text()) == len(before)
    assert losses(run.output / ".partial/qat")[: len(before)] == before


@contextmanager
def training(run: Run) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Two processes that have done their first steps together; none is left at the end."""
    ranks = start_ranks(run, *UNTIL_QAT, *LONG, *RARE)
    try:
        wait_until(begun(run), ranks[0])
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def code_of(process: "subprocess.Popen[bytes]") -> int:
    """How a process ends, which must be before gloo would give up by itself."""
    waited = time.monotonic()
    code = process.wait(60)
    assert time.monotonic() - waited < 20
    return code


def said_by(run: Run, rank: int) -> str:
    text = (run.folder / f"rank{rank}.txt").read_text()
    assert "Traceback" not in text
    return text


def test_a_follower_that_is_killed(copy_until: CopyUntil) -> None:
    run = copy_until("data", "fp32", "calibrated")
    with training(run) as (leader, follower):
        follower.kill()
        assert code_of(leader) == 1
    said = said_by(run, 0)
    assert re.search(r"^error: .*rank 1 of 2", said, re.MULTILINE)
    assert "checkpoint" in said


@pytest.mark.full
def test_rank_0_that_is_killed(copy_until: CopyUntil) -> None:
    run = copy_until("data", "fp32", "calibrated")
    with training(run) as (leader, follower):
        leader.kill()
        assert code_of(follower) == 1
    assert re.search(r"^error: .*rank 0", said_by(run, 1), re.MULTILINE)


@pytest.mark.full
def test_a_follower_that_is_asked_to_stop(copy_until: CopyUntil) -> None:
    """As when the node of one pod is drained."""
    run = copy_until("data", "fp32", "calibrated")
    with training(run) as ranks:
        ranks[1].send_signal(signal.SIGTERM)
        assert [code_of(rank) for rank in ranks] == [143, 143]
    (checkpoint,) = (run.output / ".partial/qat/checkpoints").glob("step-*.npz")
    assert checkpoint.stem == f"step-{len(losses(run.output / '.partial/qat')):09d}"
    assert re.search(r"^error: .*SIGTERM.*qat", said_by(run, 0), re.MULTILINE)
    assert re.search(r"^error: .*rank 0.*SIGTERM.*qat", said_by(run, 1), re.MULTILINE)


def test_what_cannot_be_shared_is_refused_at_once(copy_until: CopyUntil) -> None:
    run = copy_until("data", "fp32", "calibrated")
    ranks = start_ranks(run, "--set", "train.batch_size=63", "--set", "train.freeze_bn_stats=false")
    assert [code_of(rank) for rank in ranks] == [2, 2]
    for rank in (0, 1):
        said = said_by(run, rank)
        assert re.search(r"^  /train/batch_size: .*\b63\b", said, re.MULTILINE)
        assert "/train/freeze_bn_stats: " in said
    assert not (run.output / "logs").exists()
