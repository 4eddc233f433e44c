"""The PADDLE_* variables, and which manifests several processes can train."""

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
        ("changes", "fault"),
        [
            ({"PADDLE_TRAINER_ID": "2"}, "NUM is 2 .*TRAINER_ID is 2.* 2 endpoints"),
            ({"PADDLE_TRAINER_ENDPOINTS": "a:1"}, "PADDLE_TRAINER_ENDPOINTS .*1 endpoints"),
            ({"PADDLE_TRAINER_ENDPOINTS": ""}, "PADDLE_TRAINER_ENDPOINTS .*0 endpoints"),
            ({"PADDLE_TRAINER_ID": ""}, "PADDLE_TRAINER_ID: .*''"),
            ({"PADDLE_TRAINERS_NUM": "two"}, "PADDLE_TRAINERS_NUM: .*'two'"),
            ({"PADDLE_TRAINER_ENDPOINTS": "a,b:1"}, "HOST:PORT, .*'a'"),
        ],
    )
    def test_what_does_not_fit(self, changes: dict[str, str], fault: str) -> None:
        with pytest.raises(UsageError, match=fault):
            group_of({**TWO, **changes})


class TestRules:
    def test_what_can_be_shared(self) -> None:
        check_shared(manifest(), 4)

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"train__batch_size": 66}, "/train/batch_size: .*4.*66"),
            ({"train__freeze_bn_stats": False}, "/train/freeze_bn_stats: "),
            ({"train__device": "gpu"}, "/train/device: .*gpu"),
            ({"quantize__strategy": "post"}, "/quantize, /train: "),
            ({"train__max_iters": 0}, "/quantize, /train: "),
            ({"matrix": [{"name": "a", "set": {"train.epochs": 2}}]}, "/matrix: "),
        ],
    )
    def test_what_cannot(self, changes: dict[str, Any], fault: str) -> None:
        with pytest.raises(UsageError, match=f"(?s)4 processes .*{fault}"):
            check_shared(manifest(**changes), 4)

    def test_all_faults_at_once(self) -> None:
        with pytest.raises(UsageError, match=r"(?s)/train/batch_size.*/train/freeze_bn_stats"):
            check_shared(manifest(train__batch_size=2, train__freeze_bn_stats=False), 4)

    def test_one_model_of_a_matrix(self) -> None:
        with pytest.raises(UsageError, match="/matrix: "):
            check_shared(manifest(), 4, index=0)


def test_a_stage_learns_where_to_meet() -> None:
    rendezvous = Rendezvous.of(GROUP, 1234)
    assert meeting_of(rendezvous.variables()) == rendezvous
    assert rendezvous.place == (1, 4, "10.0.0.1", 1234)
    assert meeting_of({}) is None
    assert [rendezvous.threads(cores) for cores in (1, 2, 5)] == [1, 1, 2]


def test_identity_is_that_of_the_manifest() -> None:
    assert identity(manifest()) == identity(manifest())
    assert identity(manifest()) != identity(manifest(train__seed=7))
