"""Rank 0 and rank 1 with fake stages: which rank runs what, and how each ends."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_stages
import pytest
from fake_stages import Recorder, go, make_manifest, names, stage

from job.distributed.control import Coordinator, Participant
from job.distributed.group import Group
from job.errors import DataError, PeerLost, RankZeroEnded
from job.pipeline.follower import train_with_rank_zero
from job.pipeline.plan import UNCHANGED
from job.pipeline.run import RunResult
from job.stages.stage import Stage


def shared(run: Any = fake_stages.pair, follower_stage: Any = fake_stages.beside_pair) -> Stage:
    """A stage that two processes run together."""
    return replace(stage("pair", work=run), follower_stage=stage("pair", work=follower_stage))


class Two:
    """Both ranks of a run, rank 1 in a thread."""

    def __init__(self, base: Path, port: int, other: ThreadPoolExecutor) -> None:
        self.base, self.other = base, other
        self.groups = [Group(rank, 2, "127.0.0.1", port, 2) for rank in (0, 1)]
        self.uis = Recorder(), Recorder()
        self.followed: Future[None]

    def go(self, *stages: Stage, **options: Any) -> RunResult:
        """Run as rank 0, together with rank 1."""
        self.followed = self.other.submit(self._follow, stages)
        with Coordinator(self.groups[0], "same") as coordinator:
            coordinator.gather(lambda text: None)
            manifest, output = make_manifest(self.base), self.base / "run"
            return go(manifest, output, stages, ui=self.uis[0], coordinator=coordinator, **options)

    def _follow(self, stages: Sequence[Stage]) -> None:
        with Participant(self.groups[1], "same") as participant:
            train_with_rank_zero(
                make_manifest(self.base), participant, stages=stages, ui=self.uis[1]
            )


@pytest.fixture
def two(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    make_manifest(tmp_path)
    monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "scratch"))
    with ThreadPoolExecutor() as other:
        yield Two(tmp_path, port, other)


def test_both_do_their_part(two: Two) -> None:
    result = two.go(stage("first"), shared())
    two.followed.result(10)
    assert result.report is not None
    rank, size, host, meeting_port = result.report["records"]["pair"]["place"]
    assert (rank, size, host) == (0, 2, "127.0.0.1")
    assert meeting_port not in (0, two.groups[0].port)
    # Rank 1 takes no part in other stages.
    assert two.uis[0].lines[0].startswith("first runs: ")
    assert "info rank 1 of 2: beside 1 with []" in two.uis[1].messages
    assert ("rank 1 of 2", "pair", 1, 1, "steps", "") in two.uis[1].progressed
    assert two.uis[1].lines == []
    assert names(two.base / "scratch") == []


def test_nothing_to_train(two: Two) -> None:
    two.go(shared())
    two.followed.result(10)
    before = list(two.uis[1].messages)
    two.go(shared())
    two.followed.result(10)
    assert f"pair reused: {UNCHANGED}" in two.uis[0].lines
    assert not [text for text in two.uis[1].messages[len(before) :] if "beside" in text]


def test_how_many_train_is_no_reason_to_train_again(two: Two) -> None:
    two.go(shared())
    alone = Recorder()
    go(make_manifest(two.base), two.base / "run", [shared()], ui=alone)
    assert f"pair reused: {UNCHANGED}" in alone.lines


def test_a_failure_of_the_other(two: Two) -> None:
    with pytest.raises(PeerLost, match=r"rank 1 of 2 failed: images/cat.png is truncated\n"):
        two.go(shared(fake_stages.waits, fake_stages.bad_data))
    with pytest.raises(DataError, match=r"images/cat.png is truncated"):
        two.followed.result(10)
    # The log of the failed rank is kept.
    (folder,) = (two.base / "scratch").iterdir()
    assert folder.name.startswith("job-rank-1-of-2-")
    assert (folder / "pair.log").exists()


def test_a_failure_of_rank_0(two: Two) -> None:
    with pytest.raises(DataError, match=r"images/cat.png is truncated"):
        two.go(shared(fake_stages.bad_data, fake_stages.waits))
    with pytest.raises(RankZeroEnded, match=r"rank 0 .*: images/cat.png") as caught:
        two.followed.result(10)
    assert caught.value.exit_code == DataError.exit_code
    assert names(two.base / "scratch") == []


def test_the_reason_is_waited_for(two: Two) -> None:
    """A rank that notices it inside an operation knows only that the peer died."""
    with pytest.raises(PeerLost, match=r"rank 1 of 2 failed: .*SIGKILL"):
        two.go(shared(fake_stages.loses, fake_stages.killed))
    with pytest.raises(DataError, match=r"cat.png"):
        two.go(shared(fake_stages.bad_data, fake_stages.loses))
    with pytest.raises(RankZeroEnded, match=r"rank 0 .*: images/cat.png"):
        two.followed.result(10)


def test_the_other_is_lost_in_an_earlier_stage(two: Two) -> None:
    with (
        pytest.raises(PeerLost, match="rank 1 of 2"),
        Coordinator(two.groups[0], "same") as coordinator,
    ):
        with Participant(two.groups[1], "same"):
            coordinator.gather(lambda text: None)
        output = two.base / "run"
        go(make_manifest(two.base), output, [stage("waits")], coordinator=coordinator)
