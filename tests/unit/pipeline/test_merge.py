"""A matrix whose models run one at a time, and the merge of their results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_stages import CHAIN, Recorder, stage
from matrix_runs import BAD_SEED, REPORTING, models
from moto_server import S3Server

from job.errors import DataError, UsageError
from job.manifest import Manifest
from job.pipeline import matrix
from job.pipeline import merge as merging
from job.pipeline.matrix import MatrixResult
from job.pipeline.output_location import Location
from job.pipeline.request import ReportConfig, RunRequest
from job.report.render import schema_check
from job.stages.stage import Stage
from job.storage.local import FAILURE, LocalOutput
from job.storage.s3.fetch_run import read_report
from job.uri import S3Uri


def stages_for(manifest: Manifest) -> Sequence[Stage]:
    return (stage("bad_data"),) if manifest.train.seed == BAD_SEED else CHAIN[:1]


def run_index(
    manifest: Manifest, index: int, output: Location, report: ReportConfig = REPORTING
) -> None:
    merging.run_index(manifest, index, RunRequest(output, stages_for, report), Recorder())


def as_measured(report: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    return {**report, "manifest": dict(manifest.resolved)}


def build(manifest: Manifest, *others: Any) -> Mapping[str, Any]:
    assert REPORTING.build
    return as_measured(REPORTING.build(manifest, *others), manifest)


# The report of a model contains the manifest, like real reports.
OURS = ReportConfig(build=build, render=REPORTING.render)


def merge(manifest: Manifest, output: Location) -> MatrixResult:
    return merging.merge(manifest, output=output, ui=Recorder())


def statuses(result: MatrixResult) -> dict[str, str]:
    return {model.name: model.status for model in result.models}


def without_time(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_bytes())
    del report["created_at"]
    return report


def test_joined_is_what_one_run_of_all_reports(tmp_path: Path) -> None:
    manifest = models(tmp_path, one=1, two=2)
    for index in (1, 0):
        run_index(manifest, index, tmp_path / "apart", OURS)
    assert not (tmp_path / "apart/report.json").exists()
    result = merge(manifest, tmp_path / "apart")
    assert (result.failure, statuses(result)) == (None, {"one": "passed", "two": "passed"})
    matrix.run(manifest, RunRequest(tmp_path / "all", stages_for, OURS), Recorder())
    apart, whole = (without_time(tmp_path / name / "report.json") for name in ("apart", "all"))
    # Only host and versions differ: a merge takes them from the models, not from this machine.
    for name in ("host", "versions"):
        assert (
            apart.pop(name) == json.loads((tmp_path / "apart/one/report.json").read_bytes())[name]
        )
        del whole[name]
    assert apart == whole


def test_again_changes_nothing(tmp_path: Path) -> None:
    manifest = models(tmp_path, one=1, two=2)
    run_index(manifest, 0, tmp_path / "out", OURS)
    merge(manifest, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*report*")}
    merge(manifest, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*report*")} == before
    assert len(before) == 4


def test_while_some_still_run(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, one=1, two=2, three=3), tmp_path / "out"
    run_index(manifest, 1, output, OURS)
    # A run locks only the folder of its own model.
    with LocalOutput(output / "three").locked():
        result = merge(manifest, output)
    assert statuses(result) == {"one": "unfinished", "two": "passed", "three": "unfinished"}
    assert result.failure is not None
    assert result.failure.exit_code == 1
    lines = str(result.failure).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["2", "one:", "three:"]
    assert "has not started" in lines[1]
    assert "has not finished" in lines[2]
    report = json.loads((output / "report.json").read_bytes())
    assert report["status"] == "unfinished"
    schema_check.validate(report)
    text = (output / "report.md").read_text()
    assert "no result yet: one, three" in text
    for index in (0, 2):
        run_index(manifest, index, output, OURS)
    assert merge(manifest, output).failure is None
    assert json.loads((output / "report.json").read_bytes())["status"] == "passed"


def test_index_that_cannot_begin_is_shown(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, one=1), tmp_path / "out"
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(DataError, match=r"weights\.bin"):
        run_index(manifest, 0, output, OURS)
    assert statuses(merge(manifest, output)) == {"one": "failed"}


def test_failed_index_is_shown_until_it_is_mended(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, one=1, bad=BAD_SEED, slow=60), tmp_path / "out"
    run_index(manifest, 0, output, OURS)
    with pytest.raises(DataError, match=r"images/cat\.png is truncated"):
        run_index(manifest, 1, output, OURS)
    run_index(manifest, 2, output, OURS)
    result = merge(manifest, output)
    assert statuses(result) == {"one": "passed", "bad": "failed", "slow": "gate_failed"}
    assert result.failure is not None
    assert result.failure.exit_code == 4
    assert str(result.failure).startswith("2 of 3 models ")
    assert "\n  bad: images/cat.png is truncated" in str(result.failure)
    report = json.loads((output / "report.json").read_bytes())
    assert report["matrix"][1]["error"]["exit_code"] == 4
    mended = models(tmp_path, one=1, bad=14, slow=60)
    assert statuses(merge(mended, output))["bad"] == "unfinished"
    run_index(mended, 1, output, OURS)
    assert statuses(merge(mended, output))["bad"] == "passed"


def test_note_of_a_failure_goes_when_the_next_try_begins(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, bad=BAD_SEED), tmp_path / "out"
    with pytest.raises(DataError, match="truncated"):
        run_index(manifest, 0, output, OURS)
    note = output / "bad" / FAILURE
    assert note.exists()
    run_index(models(tmp_path, bad=1), 0, output, OURS)
    assert not note.exists()


def test_result_of_other_settings_is_none(tmp_path: Path) -> None:
    run_index(models(tmp_path, one=1), 0, tmp_path / "out", OURS)
    result = merge(models(tmp_path, one=2), tmp_path / "out")
    assert statuses(result) == {"one": "unfinished"}
    assert "other settings" in str(result.failure)


def test_different_machines_are_named(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, one=1, two=2, three=3), tmp_path / "out"
    for index in range(3):
        run_index(manifest, index, output, OURS)
    path = output / "two/report.json"
    report = json.loads(path.read_bytes())
    report["host"] |= {"cpu_model": "Another", "quota_cores": 4.0, "allocator": "jemalloc"}
    path.write_text(json.dumps(report))
    merge(manifest, output)
    notes = json.loads((output / "report.json").read_bytes())["notes"]
    assert "different machines" in notes[0]
    assert "one, three on " in notes[0]
    assert "two on Another, 4 cores, jemalloc" in notes[0]


@pytest.mark.parametrize("index", [-1, 2])
def test_no_such_model(tmp_path: Path, index: int) -> None:
    manifest = models(tmp_path, one=1, two=2)
    with pytest.raises(UsageError, match=f"--index {index}: .* 0 to 1"):
        run_index(manifest, index, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_single_manifest_has_nothing_to_join(tmp_path: Path) -> None:
    manifest = merging.model_at(models(tmp_path, one=1), 0)[1]
    with pytest.raises(UsageError, match="no matrix"):
        merge(manifest, tmp_path / "out")
    with pytest.raises(UsageError, match=r"--index 0: .* no matrix"):
        run_index(manifest, 0, tmp_path / "out")


def test_in_s3_each_machine_has_an_empty_disk(
    bucket: S3Uri, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, output = models(tmp_path, one=1, bad=BAD_SEED, three=3), bucket / "matrix"

    def on_a_fresh_machine(number: int) -> None:
        monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / f"scratch{number}"))

    on_a_fresh_machine(0)
    run_index(manifest, 0, output, OURS)
    on_a_fresh_machine(1)
    with pytest.raises(DataError, match="truncated"):
        run_index(manifest, 1, output, OURS)
    on_a_fresh_machine(2)
    result = merge(manifest, output)
    assert statuses(result) == {"one": "passed", "bad": "failed", "three": "unfinished"}
    assert [model.exit_code for model in result.models] == [0, 4, 1]
    on_a_fresh_machine(3)
    run_index(manifest, 2, output, OURS)
    on_a_fresh_machine(4)
    merge(manifest, output)
    report = read_report(s3_server.store, output, print)
    assert [entry["status"] for entry in report["matrix"]] == ["passed", "failed", "passed"]
