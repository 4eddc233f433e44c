"""Parts of a test split: how the split is cut, and which parts are reused."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_stages import make_manifest
from hypothesis import given
from hypothesis import strategies as st

from job.host import read_host
from job.manifest import Manifest, parse
from job.pipeline import shards as sharding
from job.pipeline.fingerprint import ingredients, key_of, library_versions
from job.pipeline.plan import Planner
from job.stages.accuracy import BATCH, SHARD_STAGE, STAGE, shards
from job.stages.stage import SHARD
from job.storage.local import LocalOutput

DIGESTS = {name: f"digest of {name}" for name in STAGE.needs}


@given(images=st.integers(1, 5000), count=st.integers(1, 40))
def test_cut_into_whole_batches_that_cover_all_in_order(images: int, count: int) -> None:
    parts = shards(images, count)
    assert [image for part in parts for image in part] == list(range(images))
    assert all(part.start % BATCH == 0 for part in parts)
    assert len(parts) <= count
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) < 2 * BATCH


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    document = {**make_manifest(tmp_path).resolved, "accuracy": {"shards": 3}}
    return parse(document, "test.json", tmp_path)


@pytest.fixture
def planner(manifest: Manifest, tmp_path: Path) -> Planner:
    output = LocalOutput(tmp_path / "out")
    return Planner(manifest, output, library_versions(), read_host())


def leave_part(number: int, planner: Planner, of: str = "3") -> None:
    """Publish a part, like `job score`."""
    folder = LocalOutput(planner.output.root / f"shards/{number}")
    found = ingredients(
        SHARD_STAGE,
        planner.manifest,
        upstream={**DIGESTS, SHARD: f"{number} of {of}"},
        digests=folder.digests,
        versions=planner.versions,
        host=planner.host,
    )
    with folder.locked():
        path, _ = folder.partial("score", key_of(found))
        (path / "part.npz").write_bytes(b"scores")
        folder.publish("score", "part", ingredients=found, seconds=1.0, record={"images": 1})


def taken(planner: Planner, **digests: str) -> list[str]:
    found = sharding.finished_parts(
        SHARD_STAGE, planner.output.root, planner.output.root / "tmp", planner, DIGESTS | digests
    )
    return sorted(found)


def test_parts_that_are_there_are_taken(planner: Planner) -> None:
    assert taken(planner) == []
    for number in (0, 2):
        leave_part(number, planner)
    assert taken(planner) == ["shard-0", "shard-2"]


def test_parts_of_anything_else_are_not(planner: Planner) -> None:
    leave_part(0, planner)
    leave_part(1, planner, of="4")
    assert taken(planner) == ["shard-0"]
    # Another INT8 model, another CPU, another version, and a changed file.
    assert taken(planner, int8="digest of another") == []
    assert taken(replace(planner, host=replace(planner.host, cpu_model="Another"))) == []
    assert taken(replace(planner, versions={**planner.versions, "paddlepaddle": "9"})) == []
    (planner.output.root / "shards/0/part/part.npz").write_bytes(b"something")
    assert taken(planner) == []


def test_shards_do_not_change_the_stages_key(planner: Planner, tmp_path: Path) -> None:
    def key(manifest: Manifest) -> str:
        digests = planner.output.digests
        host, versions = planner.host, planner.versions
        return key_of(
            ingredients(
                STAGE, manifest, upstream=DIGESTS, digests=digests, versions=versions, host=host
            )
        )

    assert key(planner.manifest) == key(make_manifest(tmp_path))
