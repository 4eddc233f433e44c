"""What Paddle's launcher tells, and what several processes may train."""

from pathlib import Path
from typing import Any

import pytest
from sample_manifest import document

from job.distributed.group import Group, Rendezvous, check_shared, group_of, identity, meeting_of
from job.errors import UsageError
from job.manifest import Manifest, parse

TWO = {
    "PADDLE_TRAINERS_NUM": "2",
    "PADDLE_TRAINER_ID": "1",
    "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:6070,10.0.0.2:6071",
}
GROUP = Group(rank=1, size=4, host="10.0.0.1", port=6070, neighbours=2)


def manifest(**changes: Any) -> Manifest:
    changes = {"train__freeze_bn_stats": True, **changes}
    return parse(document(**changes), "m.json", Path("/base"))


class TestLauncher:
    @pytest.mark.parametrize(
        "alone", [{}, {"PADDLE_TRAINERS_NUM": "1"}, {"PADDLE_TRAINERS_NUM": ""}]
    )
    def test_alone(self, alone: dict[str, str]) -> None:
        assert group_of({"PADDLE_TRAINER_ID": "0", **alone}) is None

    def test_two_machines(self) -> None:
        assert group_of(TWO) == Group(1, 2, "10.0.0.1", 6070, neighbours=1)

    def test_one_machine(self) -> None:
        endpoints = "127.0.0.1:5,127.0.0.1:6"
        found = group_of({**TWO, "PADDLE_TRAINER_ID": "0", "PADDLE_TRAINER_ENDPOINTS": endpoints})
        assert found == Group(0, 2, "127.0.0.1", 5, neighbours=2)
        assert found.leads
        assert found.name == "rank 0 of 2"

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"PADDLE_TRAINER_ID": "2"}, "is 2 and PADDLE_TRAINER_ID 2, but .* names 2 processes"),
            ({"PADDLE_TRAINER_ENDPOINTS": "a:1"}, "PADDLE_TRAINER_ENDPOINTS names 1 processes"),
            ({"PADDLE_TRAINER_ENDPOINTS": ""}, "PADDLE_TRAINER_ENDPOINTS names 0 processes"),
            ({"PADDLE_TRAINER_ID": ""}, "PADDLE_TRAINER_ID: '' is no number"),
            ({"PADDLE_TRAINERS_NUM": "two"}, "PADDLE_TRAINERS_NUM: 'two' is no number"),
            ({"PADDLE_TRAINER_ENDPOINTS": "a,b:1"}, "'a' is not HOST:PORT"),
        ],
    )
    def test_what_does_not_fit(self, changes: dict[str, str], told: str) -> None:
        with pytest.raises(UsageError, match=told):
            group_of({**TWO, **changes})


class TestRules:
    def test_what_can_be_shared(self) -> None:
        check_shared(manifest(), 4)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"train__batch_size": 66}, "/train/batch_size: 66 images, of which each of 4 process"),
            ({"train__freeze_bn_stats": None}, "/train/freeze_bn_stats: must be true"),
            ({"train__freeze_bn_stats": False}, "/train/freeze_bn_stats: must be true"),
            ({"train__device": "gpu"}, "/train/device: gpu, and processes share"),
            ({"quantize__strategy": "post"}, "nothing is trained"),
            ({"train__max_iters": 0}, "nothing is trained"),
            ({"matrix": [{"name": "a", "set": {"train.epochs": 2}}]}, "/matrix: they train one"),
        ],
    )
    def test_what_cannot(self, changes: dict[str, Any], told: str) -> None:
        with pytest.raises(UsageError, match=f"(?s)4 processes cannot train this together.*{told}"):
            check_shared(manifest(**changes), 4)

    def test_all_faults_at_once(self) -> None:
        with pytest.raises(UsageError, match=r"(?s)/train/batch_size.*/train/freeze_bn_stats"):
            check_shared(manifest(train__batch_size=2, train__freeze_bn_stats=None), 4)

    def test_one_model_of_a_matrix(self) -> None:
        with pytest.raises(UsageError, match="/matrix: they train one model"):
            check_shared(manifest(), 4, index=0)


def test_a_stage_learns_where_to_meet() -> None:
    meeting = Rendezvous.of(GROUP, 1234)
    assert meeting_of(meeting.variables()) == meeting
    assert meeting.place == (1, 4, "10.0.0.1", 1234)
    assert meeting_of({}) is None
    assert [meeting.threads(cores) for cores in (1, 2, 5)] == [1, 1, 2]


def test_identity_is_that_of_the_manifest() -> None:
    assert identity(manifest()) == identity(manifest())
    assert identity(manifest()) != identity(manifest(train__seed=7))
