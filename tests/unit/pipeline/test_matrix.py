"""Several models from one manifest: what runs, what is reused, what a failure ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_stages import Recorder
from matrix_runs import BAD_SEED, REPORTING, models, stages_for
from sample_report import sample_report

from job.errors import DataError, OutputError, UsageError
from job.manifest import Manifest
from job.pipeline import matrix
from job.pipeline.matrix import MatrixResult
from job.pipeline.plan import check_inputs
from job.storage.local import LocalOutput


def go(
    manifest: Manifest, output: Path, ui: Recorder | None = None, **options: Any
) -> MatrixResult:
    options = {"stages_for": stages_for, "reporting": REPORTING, **options}
    return matrix.run(manifest, output=output, ui=ui or Recorder(), **options)


def report_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "report.json").read_bytes())
    return found


def test_each_model_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    ui = Recorder()
    result = go(models(tmp_path, small=1, large=2), tmp_path / "out", ui)
    assert [line for line in ui.lines if "/" in line] == ["small 1/2", "large 2/2"]
    assert ui.lines.index("second done") < ui.lines.index("large 2/2")
    for name in ("small", "large"):
        assert (tmp_path / "out" / name / "second_out/deep/copy.txt").is_file()
        assert (tmp_path / "out" / name / "report.json").is_file()
    report = report_of(tmp_path / "out")
    assert report == result.report
    assert [entry["model"] for entry in report["matrix"]] == ["small", "large"]
    assert report["status"] == "passed"
    assert report["notes"] == [
        "not comparable", "of all", "small: seed 1", "large: seed 2",
    ]  # fmt: skip
    small = report["matrix"][0]
    assert small["report"] == "small/report.json"
    assert small["published"]["int8_top1"] == 70.5
    assert small["benchmark"] == sample_report()["benchmark"]
    assert result.failure is None


def test_second_run_reuses_all(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, small=1, large=2), tmp_path / "out"
    go(manifest, output)
    before = {path: path.stat().st_mtime_ns for path in output.glob("report.*")}
    ui = Recorder()
    result = go(manifest, output, ui)
    assert not result.worked
    assert not any("runs" in line for line in ui.lines)
    assert {path: path.stat().st_mtime_ns for path in output.glob("report.*")} == before
    assert len(before) == 3
    # A change of one model runs that one and both reports.
    ui = Recorder()
    assert go(models(tmp_path, small=1, large=22), output, ui).worked
    ran = [line.partition(" ")[0] for line in ui.lines if " runs: " in line]
    assert ran == ["first", "second", "report", "report"]


def test_failing_model_does_not_keep_others_from_running(tmp_path: Path) -> None:
    ui = Recorder()
    manifest = models(tmp_path, one=1, bad=BAD_SEED, slow=60)
    result = go(manifest, tmp_path / "out", ui)
    assert [model.status for model in result.models] == ["passed", "failed", "gate_failed"]
    assert "warning bad: failed: images/cat.png is truncated\nFetch it again." in ui.messages
    assert result.failure is not None
    assert result.failure.exit_code == 4
    assert "2 of 3 models failed:\n  bad: images/cat.png is truncated" in str(result.failure)
    assert result.failure.hint == "What is done stays; the same command goes on with the others."
    report = report_of(tmp_path / "out")
    assert report["status"] == "failed"
    bad = report["matrix"][1]
    assert bad["error"]["exit_code"] == 4
    assert bad["error"]["message"].startswith("images/cat.png is truncated")
    assert bad["benchmark"] is None


def test_missed_gate_alone_is_code_3(tmp_path: Path) -> None:
    result = go(models(tmp_path, slow=60, one=1), tmp_path / "out")
    assert result.failure is not None
    assert result.failure.exit_code == 3
    # Running again would change nothing.
    assert "same command" not in str(result.failure)
    assert report_of(tmp_path / "out")["status"] == "gate_failed"


def test_locked_model_ends_all_and_takes_the_report_away(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, one=1, two=2, three=3), tmp_path / "out"
    go(manifest, output)
    ui = Recorder()
    with (
        LocalOutput(output / "two").locked(),
        pytest.raises(OutputError, match="another run"),
    ):
        go(manifest, output, ui)
    assert "three 3/3" not in ui.lines
    assert not (output / "report.json").exists()
    assert (output / "one/report.json").exists()


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with (
        LocalOutput(tmp_path / "out").locked(),
        pytest.raises(OutputError, match="another run"),
    ):
        go(models(tmp_path, one=1), tmp_path / "out")


def test_foreign_report_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.json").write_text("mine")
    with pytest.raises(OutputError, match=r"report\.json "):
        go(models(tmp_path, one=1), tmp_path / "out")
    assert (tmp_path / "out/report.json").read_text() == "mine"


def test_until_leaves_no_report(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, one=1, two=2), tmp_path / "out"
    go(manifest, output)
    result = go(models(tmp_path, one=11, two=2), output, until_stage="first")
    assert result.report is None
    assert [model.status for model in result.models] == ["incomplete", "incomplete"]
    assert not (output / "report.json").exists()
    assert result.failure is None


def test_unknown_stage_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--from: there is no stage 'secnd'; did you mean second"):
        go(models(tmp_path, one=1), tmp_path / "out", from_stage="secnd")
    assert not (tmp_path / "out").exists()


def test_from_report_renders_again(tmp_path: Path) -> None:
    manifest, output = models(tmp_path, one=1), tmp_path / "out"
    go(manifest, output)
    (output / "report.md").write_text("")
    ui = Recorder()
    go(manifest, output, ui, from_stage="report")
    assert [line for line in ui.lines if " runs: " in line] == [
        "report runs: what it tells of changed",
        "report runs: of all models side by side",
    ]
    assert (output / "report.md").read_text() != ""


def test_plan_names_what_is_missing_by_model(tmp_path: Path) -> None:
    manifest = models(tmp_path, one=1, two=2)
    options: dict[str, Any] = {"stages_for": stages_for, "reporting": REPORTING}
    plans = matrix.plan(manifest, output=tmp_path / "out", **options)
    assert [name for name, _ in plans] == ["one", "two"]
    assert [s.name for s in plans[1][1]] == ["first", "second", "report"]
    assert plans[1][1][0].writes == tmp_path / "out/two/first_out"
    (tmp_path / "weights.bin").unlink()
    plans = matrix.plan(manifest, output=tmp_path / "out", **options)
    with pytest.raises(DataError, match=r"weights.bin \(read by one/first, two/first\)"):
        check_inputs(matrix.flat(plans), tmp_path)
    assert not (tmp_path / "out").exists()
