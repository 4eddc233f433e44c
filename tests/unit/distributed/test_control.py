"""Rank 0 and the other ranks on real connections: their messages, and how they end."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from job.distributed import control
from job.distributed.control import Coordinator, Participant
from job.distributed.group import Group, Rendezvous
from job.errors import (
    GateFailed,
    JobError,
    MachineError,
    PeerLost,
    RankZeroEnded,
    TrainingError,
    UsageError,
)

SIZE = 3
Join = Callable[..., Participant]


def group(rank: int, port: int) -> Group:
    return Group(rank, SIZE, "127.0.0.1", port, SIZE)


@pytest.fixture
def coordinator(port: int) -> Iterator[Coordinator]:
    with Coordinator(group(0, port), "same") as found:
        yield found


@pytest.fixture
def join(port: int) -> Iterator[Join]:
    with ExitStack() as stack:
        yield lambda rank, common="same": stack.enter_context(
            Participant(group(rank, port), common)
        )


def soon(look: Callable[[], Any]) -> Any:
    """The first result of ``look`` that is not None."""
    deadline = time.monotonic() + 60
    while (found := look()) is None:
        assert time.monotonic() < deadline
    return found


def test_all_meet(coordinator: Coordinator, join: Join) -> None:
    others = [join(rank) for rank in (2, 1)]
    messages: list[str] = []
    coordinator.gather(messages.append)
    assert len(messages) == 1
    assert "rank 1, 2 of 3" in messages[0]
    coordinator.poll()
    rendezvous = coordinator.call()
    assert rendezvous.place[:3] == (0, SIZE, "127.0.0.1")
    for participant in others:
        found = soon(lambda participant=participant: participant.poll(0.1))
        assert found == Rendezvous.of(participant.group, rendezvous.port)


def test_those_who_come_first_wait(port: int, join: Join) -> None:
    joined: list[Participant] = []
    thread = threading.Thread(target=lambda: joined.extend(join(rank) for rank in (1, 2)))
    thread.start()
    time.sleep(0.3)
    assert joined == []
    with Coordinator(group(0, port), "same") as coordinator:
        coordinator.gather(lambda text: None)
        thread.join(60)
    assert [participant.group.rank for participant in joined] == [1, 2]


def test_a_good_end_is_told(port: int, join: Join) -> None:
    with Coordinator(group(0, port), "same") as coordinator:
        participant, _ = join(1), join(2)
        coordinator.gather(lambda text: None)
    with pytest.raises(RankZeroEnded, match="rank 0") as caught:
        participant.wait_for_reason()
    assert caught.value.exit_code == 0


@pytest.mark.parametrize("error", [TrainingError("the loss is nan"), ZeroDivisionError("oh")])
def test_failures_are_told(port: int, error: Exception) -> None:
    with ExitStack() as stack:
        participants: list[Participant] = []
        with pytest.raises(type(error)), Coordinator(group(0, port), "same") as coordinator:
            participants += [
                stack.enter_context(Participant(group(rank, port), "same")) for rank in (1, 2)
            ]
            coordinator.gather(lambda text: None)
            raise error
        for participant in participants:
            with pytest.raises(RankZeroEnded, match=r"rank 0 .*(the loss is nan|oh)") as caught:
                participant.wait_for_reason()
            assert caught.value.exit_code == 1


def test_a_gate_that_failed_is_told(port: int, join: Join) -> None:
    with Coordinator(group(0, port), "same") as coordinator:
        participant, _ = join(1), join(2)
        coordinator.gather(lambda text: None)
        coordinator.failure = GateFailed("min_speedup: 1.2 is less than 2")
    with pytest.raises(RankZeroEnded, match=r"rank 0 .*min_speedup: 1\.2") as caught:
        participant.wait_for_reason()
    assert caught.value.exit_code == GateFailed.exit_code


def test_a_coordinator_that_is_gone(coordinator: Coordinator, join: Join) -> None:
    participant, _ = join(1), join(2)
    coordinator.gather(lambda text: None)
    for line in coordinator._participants.values():
        line.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(PeerLost, match="rank 0"):
        participant.wait_for_reason()


def test_a_participant_that_is_gone(coordinator: Coordinator, join: Join) -> None:
    _, participant = join(1), join(2)
    coordinator.gather(lambda text: None)
    participant.__exit__()
    with pytest.raises(PeerLost, match="rank 2 of 3"):
        coordinator.wait_for_reason()


def test_a_participant_that_fails(coordinator: Coordinator, join: Join) -> None:
    _, participant = join(1), join(2)
    coordinator.gather(lambda text: None)
    participant.report_failure(JobError("the disk is full"))
    participant.__exit__()
    with pytest.raises(PeerLost, match=r"rank 2 of 3 .*the disk is full"):
        coordinator.wait_for_reason()


def test_another_manifest(coordinator: Coordinator, join: Join) -> None:
    join(1, "other")
    with pytest.raises(UsageError, match="rank 1 of 3"):
        coordinator.gather(lambda text: None)


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
def test_strangers_are_turned_away(
    coordinator: Coordinator, join: Join, port: int, sent: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(sent)
        if not sent:
            stranger.shutdown(socket.SHUT_WR)
        join(1)
        join(2)
        coordinator.gather(lambda text: None)
        coordinator.poll(0.1)
        assert coordinator._unidentified == []


def test_those_who_do_not_come(
    coordinator: Coordinator, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "GATHERING_SECONDS", 0.3)
    join(1)
    with pytest.raises(PeerLost, match=r"rank 2 of 3 .*127\.0\.0\.1"):
        coordinator.gather(lambda text: None)


def test_no_coordinator(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "GATHERING_SECONDS", 0.3)
    with pytest.raises(PeerLost, match=r"rank 0 .*127\.0\.0\.1"):
        join(1)


def test_an_endpoint_that_is_taken(coordinator: Coordinator) -> None:
    with pytest.raises(MachineError, match=r"rank 0 .*127\.0\.0\.1"):
        Coordinator(coordinator.group, "same")


def test_objects_come_whole(coordinator: Coordinator, join: Join) -> None:
    participant, _ = join(1), join(2)
    coordinator.gather(lambda text: None)
    for part in (b'{"tra', b'in": 5', b"}\n"):
        assert participant.poll(0.05) is None
        coordinator._participants[1].connection.sendall(part)
    assert soon(lambda: participant.poll(0.1)).port == 5
