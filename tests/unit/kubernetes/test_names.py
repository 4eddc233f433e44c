"""Names of rendered Jobs, PaddleJobs, images and queues."""

from pathlib import Path
from typing import Any

import pytest
from kubernetes_policies import DNS_LABEL, is_a_job
from sample_manifest import document

from job.kubernetes import PodOptions, objects
from job.manifest import Manifest, entries, parse
from job.stages import stages_for

MATRIX = [{"name": "one", "set": {"train.epochs": 1}}, {"name": "two", "set": {"train.epochs": 2}}]


def manifest(**changes: Any) -> Manifest:
    return parse(document(output="s3://bucket/tiny", **changes), "m.json", Path("/base"))


def rendered(given: Manifest, **options: Any) -> Any:
    return objects(given, PodOptions(**options))[1]


@pytest.mark.parametrize("name", ["tiny", "a" * 100])
def test_each_stage_gives_a_valid_name(name: str) -> None:
    given = manifest(name=name, matrix=MATRIX)
    stages = [stage.name for stage in stages_for(entries(given)[0])]
    made = [rendered(given, until=stage) for stage in stages]
    assert all(map(is_a_job, made))
    assert len({each["metadata"]["name"] for each in made}) == len(stages)
    assert is_a_job(rendered(manifest(name=name, accuracy__shards=1000), score=True))


@pytest.mark.parametrize("name", ["tiny", "a" * 100])
def test_each_stage_gives_valid_names_of_pods_of_a_paddle_job(name: str) -> None:
    given = manifest(name=name, train__freeze_bn_stats=True)
    for stage in stages_for(given):
        made = rendered(given, until=stage.name, processes=2)
        assert DNS_LABEL.match(f"{made['metadata']['name']}-worker-999")


@pytest.mark.parametrize(
    "options",
    [
        {"image": "job"},
        {"image": "localhost:5000/team/job:1.0"},
        {"image": f"Registry.example/job@sha256:{'0' * 64}"},
        {"image": "r.example/a__b/c.d-e:V1_2"},
        {"queue": "team.queue"},
        {"namespace": "n" * 63},
        {"claim": "data.v2"},
    ],
)
def test_accepted(options: dict[str, Any]) -> None:
    assert is_a_job(rendered(manifest(), **options))
