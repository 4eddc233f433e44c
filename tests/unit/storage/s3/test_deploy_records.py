"""deploy.json is a part of a run in S3: uploaded, kept by a run that reuses all, and fetched."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_stages import REPORTING, go, make_manifest, stage
from moto_server import S3Server

from job.storage.s3 import index
from job.storage.s3.fetch_run import fetch
from job.uri import S3Uri

NAME = "int8/deploy.json"
STAGES = (stage("first"), replace(stage("second", "first"), output_dir="int8"))


def render(report: Mapping[str, Any]) -> Mapping[str, str]:
    return {
        NAME: '{"version": 1}',
        "report.json": json.dumps(report),
        "report.md": "",
        "report.html": "",
    }


def test_there_and_back(
    s3_server: S3Server, bucket: S3Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "scratch"))
    manifest, output = make_manifest(tmp_path), bucket / "run"
    reporting = replace(REPORTING, render=render)
    go(manifest, output, STAGES, report=reporting)
    first = index.read(s3_server.store, output).files[NAME]
    shutil.rmtree(tmp_path / "scratch")
    assert not go(manifest, output, STAGES, report=reporting).worked
    assert index.read(s3_server.store, output).files[NAME].content == first.content
    fetch(s3_server.store, output, tmp_path / "copy", print)
    assert json.loads((tmp_path / "copy" / NAME).read_text()) == {"version": 1}
