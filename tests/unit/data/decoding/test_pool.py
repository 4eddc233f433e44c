import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_fakes import TroubledSource, Unstartable

from job.data.decoding.pool import DecodePool
from job.data.sources import BadImage
from job.data.transforms import Evaluate
from job.errors import JobError


def pool(source: TroubledSource, workers: int = 2, timeout_s: float = 60.0) -> DecodePool:
    transform = Evaluate((8, 8))
    return DecodePool(source, transform, seed=0, workers=workers, ahead=64, timeout_s=timeout_s)


def reasons(source: TroubledSource, decoding: DecodePool) -> dict[int, str]:
    """Decode all; check the good ones; the reasons of the bad ones."""
    outcomes = list(decoding.decode(0, range(source.count)))
    assert len(outcomes) == source.count
    bad: dict[int, str] = {}
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, BadImage):
            assert outcome.path == f"{index}.jpg"
            bad[index] = outcome.reason
        else:
            np.testing.assert_array_equal(outcome, np.full((8, 8, 3), index, np.uint8))
    return bad


def test_a_process_that_dies_costs_only_the_guilty_image() -> None:
    source = TroubledSource(100, bad=(2,), deadly=(20, 21), crashing=(99,))
    with pool(source) as decoding:
        bad = reasons(source, decoding)
        assert bad.keys() == {2, 20, 21, 99}
        assert bad[2] == "the file is empty"
        assert "killed" in bad[20] == bad[21]
        assert "code 3" in bad[99]
        assert len(decoding.process_ids) == 2


def test_a_process_that_hangs_is_replaced() -> None:
    source = TroubledSource(60, hanging=(5,))
    started = time.monotonic()
    with pool(source, timeout_s=2.0) as decoding:
        bad = reasons(source, decoding)
    assert bad.keys() == {5}
    assert "2 s" in bad[5]
    assert time.monotonic() - started < 60


def test_processes_killed_from_outside_cost_no_image() -> None:
    source = TroubledSource(200)
    with pool(source) as decoding:
        outcomes = decoding.decode(0, range(200))
        seen = [next(outcomes) for _ in range(5)]
        for process_id in decoding.process_ids:
            os.kill(process_id, 9)
        seen += outcomes
        assert not any(isinstance(outcome, BadImage) for outcome in seen)
        assert len(seen) == 200
        # What an abandoned call left over does not reach the next one.
        abandoned = decoding.decode(0, range(100, 200))
        next(abandoned)
        assert reasons(source, decoding) == {}


def test_processes_that_cannot_start_are_an_error() -> None:
    with (
        pool(Unstartable(5), workers=1) as decoding,
        pytest.raises(JobError, match=r"3 times.*code 7"),
    ):
        list(decoding.decode(0, range(5)))


ORPHANING = """
import os, sys
sys.path.insert(0, {tests!r})
from data_fakes import TroubledSource
from job.data.decoding.pool import DecodePool
from job.data.transforms import Evaluate
pool = DecodePool(TroubledSource(64, hanging=(0,)), Evaluate((8, 8)), seed=0, workers=2, ahead=64)
outcomes = pool.decode(0, range(16, 64))
next(outcomes)
heavy = [name for name in ("paddle", "jsonschema") if name in sys.modules]
print(*pool.process_ids, *heavy, flush=True)
pool.decode(0, range(16)).__next__()
"""


def test_processes_die_with_a_killed_parent() -> None:
    code = ORPHANING.format(tests=str(Path(__file__).parents[2]))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env
    ) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(0.2)
        parent.kill()
    deadline = time.monotonic() + 60
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline, "decoding processes outlived their parent"
        time.sleep(0.02)


def is_running(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
