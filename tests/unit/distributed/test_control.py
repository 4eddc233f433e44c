"""Rank 0 and the others on real connections: what they tell each other, and how they end."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from job.distributed import control as lifeline
from job.distributed.control import Coordinator, Participant
from job.distributed.group import Group, Rendezvous
from job.errors import (
    GateFailed,
    JobError,
    LeaderEnded,
    MachineError,
    PeerLost,
    TrainingError,
    UsageError,
)

SIZE = 3
Join = Callable[..., Participant]


def group(rank: int, port: int) -> Group:
    return Group(rank, SIZE, "127.0.0.1", port, SIZE)


@pytest.fixture
def leader(port: int) -> Iterator[Coordinator]:
    with Coordinator(group(0, port), "same") as found:
        yield found


@pytest.fixture
def join(port: int) -> Iterator[Join]:
    with ExitStack() as stack:
        yield lambda rank, common="same": stack.enter_context(
            Participant(group(rank, port), common)
        )


def soon(look: Callable[[], Any]) -> Any:
    """What ``look`` returns once it is something."""
    deadline = time.monotonic() + 10
    while (found := look()) is None:
        assert time.monotonic() < deadline
    return found


def test_all_meet(leader: Coordinator, join: Join) -> None:
    others = [join(rank) for rank in (2, 1)]
    said: list[str] = []
    leader.gather(said.append)
    assert said == ["waiting for rank 1, 2 of 3"]
    leader.attend()
    meeting = leader.call()
    assert meeting.place[:3] == (0, SIZE, "127.0.0.1")
    for follower in others:
        found = soon(lambda follower=follower: follower.attend(0.1))
        assert found == Rendezvous.of(follower.group, meeting.port)


def test_those_who_come_first_wait(port: int, join: Join) -> None:
    joined: list[Participant] = []
    thread = threading.Thread(target=lambda: joined.extend(join(rank) for rank in (1, 2)))
    thread.start()
    time.sleep(0.3)
    assert joined == []
    with Coordinator(group(0, port), "same") as leader:
        leader.gather(lambda text: None)
        thread.join(10)
    assert [follower.group.rank for follower in joined] == [1, 2]


def test_a_good_end_is_told(port: int, join: Join) -> None:
    with Coordinator(group(0, port), "same") as leader:
        follower, _ = join(1), join(2)
        leader.gather(lambda text: None)
    with pytest.raises(LeaderEnded, match="rank 0 ended") as caught:
        follower.ask_why()
    assert caught.value.exit_code == 0


@pytest.mark.parametrize("error", [TrainingError("the loss is nan"), ZeroDivisionError("oh")])
def test_failures_are_told(port: int, error: Exception) -> None:
    with ExitStack() as stack:
        followers: list[Participant] = []
        with pytest.raises(type(error)), Coordinator(group(0, port), "same") as leader:
            followers += [
                stack.enter_context(Participant(group(rank, port), "same")) for rank in (1, 2)
            ]
            leader.gather(lambda text: None)
            raise error
        for follower in followers:
            told = r"rank 0 ended: .*(the loss is nan|oh)"
            with pytest.raises(LeaderEnded, match=told) as caught:
                follower.ask_why()
            assert caught.value.exit_code == 1


def test_a_gate_that_failed_is_told(port: int, join: Join) -> None:
    with Coordinator(group(0, port), "same") as leader:
        follower, _ = join(1), join(2)
        leader.gather(lambda text: None)
        leader.failure = GateFailed("min_speedup: 1.2 is less than 2")
    with pytest.raises(LeaderEnded, match="rank 0 ended: min_speedup") as caught:
        follower.ask_why()
    assert caught.value.exit_code == GateFailed.exit_code


def test_a_leader_that_is_gone(leader: Coordinator, join: Join) -> None:
    follower, _ = join(1), join(2)
    leader.gather(lambda text: None)
    for line in leader._lines.values():
        line.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(PeerLost, match="rank 0 is gone, without a word"):
        follower.ask_why()


def test_a_follower_that_is_gone(leader: Coordinator, join: Join) -> None:
    _, follower = join(1), join(2)
    leader.gather(lambda text: None)
    follower.__exit__()
    with pytest.raises(PeerLost, match="rank 2 of 3 is gone, without a word"):
        leader.ask_why()


def test_a_follower_that_fails(leader: Coordinator, join: Join) -> None:
    _, follower = join(1), join(2)
    leader.gather(lambda text: None)
    follower.tell_failure(JobError("the disk is full"))
    follower.__exit__()
    with pytest.raises(PeerLost, match="rank 2 of 3 failed: the disk is full"):
        leader.ask_why()


def test_another_manifest(leader: Coordinator, join: Join) -> None:
    join(1, "other")
    with pytest.raises(UsageError, match="rank 1 of 3 was started with another manifest"):
        leader.gather(lambda text: None)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b'{"rank": 0, "identity": "same"}\n',
        b'{"rank": 9, "identity": "same"}\n',
        b'{"rank": "1", "identity": "same"}\n',
        b'{"rank": 1}\n',
        b"x" * (1 << 17),
        b"",
    ],
)
def test_strangers_are_turned_away(leader: Coordinator, join: Join, port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(sent)
        if not sent:
            stranger.shutdown(socket.SHUT_WR)
        join(1)
        join(2)
        leader.gather(lambda text: None)
        leader.attend(0.1)
        assert leader._strangers == []


def test_those_who_do_not_come(
    leader: Coordinator, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline, "GATHERING_SECONDS", 0.3)
    join(1)
    with pytest.raises(PeerLost, match=r"rank 2 of 3 did not come to 127.0.0.1"):
        leader.gather(lambda text: None)


def test_no_leader(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "GATHERING_SECONDS", 0.3)
    with pytest.raises(PeerLost, match=r"rank 0 cannot be reached at 127.0.0.1"):
        join(1)


def test_an_endpoint_that_is_taken(leader: Coordinator) -> None:
    with pytest.raises(MachineError, match=r"rank 0 cannot listen at its endpoint 127.0.0.1"):
        Coordinator(leader.group, "same")


def test_objects_come_whole(leader: Coordinator, join: Join) -> None:
    follower, _ = join(1), join(2)
    leader.gather(lambda text: None)
    for part in (b'{"tra', b'in": 5', b"}\n"):
        assert follower.attend(0.05) is None
        leader._lines[1].connection.sendall(part)
    assert soon(lambda: follower.attend(0.1)).port == 5
