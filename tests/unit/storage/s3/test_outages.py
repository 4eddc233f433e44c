"""A run with its output in S3 survives an outage in each of its phases."""

import time
from pathlib import Path

import pytest
from fake_stages import Recorder, go, make_manifest, stage
from unusual_s3 import BUCKET, Unusual

from job.storage.s3 import index

OUTAGE_SECONDS = 1.5
STAGES = (stage("first"), stage("counting"))
# A key of the first PUT that fails in each phase.
PHASES = {
    "none": "nothing",
    "taking the lease": "/lease/",
    "stage running": "/.partial/counting/checkpoints/",
    "saving": "/first_out/",
    "publishing": "/report.json",
}


def artifacts(server: Unusual, output: str) -> dict[str, str]:
    """SHA-256 by path of the files of stages; records contain times."""
    files = index.read(server.store(), BUCKET / output).files
    assert "report.json" in files
    assert not any(path.startswith(".partial") for path in files)
    return {
        path: entry.sha256
        for path, entry in files.items()
        if "_out/" in path and not path.endswith("stage.json")
    }


def test_an_outage_in_each_phase(
    server: Unusual, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    # The stage must run during the outage.
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.04")
    found = {}
    for number, (phase, key) in enumerate(PHASES.items()):
        monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / f"scratch-{number}"))
        server.habits.leaves_at, server.habits.leaves_for = key, OUTAGE_SECONDS
        ui = Recorder()
        go(make_manifest(tmp_path), BUCKET / f"run-{number}", stages=STAGES, ui=ui)
        assert time.monotonic() > server.habits.away_until
        assert bool(server.habits.leaves_at) == (phase == "none")
        assert "counting done" in ui.lines
        found[phase] = artifacts(server, f"run-{number}")
        if phase == "none":
            assert len(found["none"]) >= 3
        else:
            assert any("retr" in message for message in ui.messages)
    assert all(each == found["none"] for each in found.values())
