"""A test split that several machines score: the same result, to the last digit."""

import re
from collections.abc import Callable

import pytest
from tiny_run import Run, job, record_of

pytestmark = pytest.mark.e2e

IN_THREE = ("--set", "accuracy.shards=3")
MODELS = ("data", "fp32", "qat", "qat_fake", "int8")


def test_joined_parts_equal_the_whole(finished: Run, copy_until: Callable[..., Run]) -> None:
    run = copy_until(*MODELS)
    for number in (0, 2):
        done = job("score", "m.json", *IN_THREE, "--shard", str(number), cwd=run.folder)
        assert f"Scored shard {number} " in done.out
    assert not (run.output / "accuracy").exists()
    done = job("run", "m.json", *IN_THREE, "--until", "accuracy", cwd=run.folder)
    assert re.search(r"accuracy: .*2 of 3", done.err)
    assert record_of(run.output, "accuracy") == record_of(finished.output, "accuracy")
    one, other = (each.output / "accuracy/predictions.npz" for each in (run, finished))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.full
def test_nothing_to_score_yet(copy_until: Callable[..., Run]) -> None:
    run = copy_until("data", "fp32")
    done = job("score", "m.json", *IN_THREE, "--shard", "0", cwd=run.folder, expect=4)
    assert "out/qat_fake" in done.err
    assert "--until int8" in done.err
    done = job("score", "m.json", *IN_THREE, "--shard", "3", cwd=run.folder, expect=2)
    for name in ("--shard 3", "/accuracy/shards", "0 to 2"):
        assert name in done.err
