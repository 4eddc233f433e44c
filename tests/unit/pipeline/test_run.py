"""Planning, reuse, early cutoff, resuming and reporting, with stages in real processes."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_stages import (
    CHAIN,
    REPORTING,
    Recorder,
    bad_data,
    build_report,
    crash,
    go,
    make_manifest,
    names,
    plan_of,
    render,
    stage,
    third,
)

from job.errors import DataError, OutputError, StageCrashed, UsageError
from job.pipeline import fingerprint
from job.pipeline.plan import NO_RESULT, RESUMES, UNCHANGED
from job.pipeline.request import ReportConfig
from job.pipeline.run_report import CHANGED
from job.stages.stage import Stage
from job.storage.local import LocalOutput

FIRST_TIME = [
    f"first runs: {NO_RESULT}",
    "first done",
    f"second runs: {NO_RESULT}",
    "second done",
    f"third runs: {NO_RESULT}",
    "third done",
    f"report runs: {CHANGED}",
    "report done",
]


def again(base: Path, *overrides: str, **options: Any) -> list[str]:
    """Run in ``base/run`` and return the events of stages."""
    ui = Recorder()
    go(make_manifest(base, *overrides), base / "run", ui=ui, **options)
    return ui.lines


def planned(base: Path, *overrides: str, **options: Any) -> dict[str, tuple[str, str]]:
    stages = plan_of(make_manifest(base, *overrides), base / "run", **options)
    return {stage.name: (stage.action, stage.reason) for stage in stages}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete run, to be copied."""
    base = tmp_path_factory.mktemp("finished")
    again(base)
    return base


class TestFirstRun:
    def test_leaves_everything(self, tmp_path: Path) -> None:
        ui = Recorder()
        result = go(make_manifest(tmp_path), tmp_path / "run", ui=ui)
        assert ui.lines == FIRST_TIME
        assert ui.messages == ["warning first: tens written"]
        assert ui.progressed[-1] == ("second", "second", 3, 3, "steps", "loss 0.5")
        root = tmp_path / "run"
        visible = {path.name for path in root.iterdir() if not path.name.startswith(".")}
        assert visible == {
            "first_out",
            "second_out",
            "third_out",
            "logs",
            "manifest.json",
            "report.json",
            "report.md",
            "report.html",
        }
        assert names(root / ".partial") == []
        assert (root / "second_out/deep/copy.txt").read_text() == "0"
        assert "chatter of a library" in (root / "logs/second.log").read_text()
        assert json.loads((root / "manifest.json").read_bytes())["name"] == "tiny"
        assert [row.status for row in result.rows] == ["ran"] * 3
        assert result.report is not None
        assert result.report["records"]["third"] == {"from": ["second"]}
        assert result.report["comparable"] is True
        assert int(result.report["records"]["second"]["threads"]) >= 1

    def test_plan_writes_nothing(self, tmp_path: Path) -> None:
        stages = plan_of(make_manifest(tmp_path), tmp_path / "run")
        assert [(s.name, s.action, s.reason) for s in stages] == [
            (name, "run", NO_RESULT) for name in ("first", "second", "third")
        ]
        assert stages[0].reads == (tmp_path / "weights.bin",)
        assert stages[1].reads == (tmp_path / "run" / "first_out",)
        assert stages[1].writes == tmp_path / "run" / "second_out"
        assert names(tmp_path) == ["weights.bin"]

    def test_a_stage_that_runs_in_any_case_needs_no_cache_key(self, tmp_path: Path) -> None:
        """A cache key needs the digests of the source, which take half a second."""
        asked: list[str] = []

        def asking(each: Stage) -> Stage:
            return replace(each, settings=lambda manifest: {"asked": asked.append(each.name)})

        stages = tuple(map(asking, CHAIN))
        manifest = make_manifest(tmp_path)
        plan_of(manifest, tmp_path / "run", stages)
        assert asked == ["first"]
        go(manifest, tmp_path / "run", stages)
        asked.clear()
        reasons = [
            each.reason for each in plan_of(manifest, tmp_path / "run", stages, from_stage="second")
        ]
        assert reasons == [UNCHANGED, "--from second", "--from second"]
        assert asked == ["first", "second"]

    def test_missing_input_is_named_before_anything_runs(self, tmp_path: Path) -> None:
        manifest = make_manifest(tmp_path)
        (tmp_path / "weights.bin").unlink()
        stages = plan_of(manifest, tmp_path / "run")
        assert stages[0].missing == (tmp_path / "weights.bin",)
        ui = Recorder()
        with pytest.raises(DataError, match=r"weights.bin \(read by first\)"):
            go(manifest, tmp_path / "run", ui=ui)
        assert ui.lines == []


class TestEarlyCheck:
    def checked(self, check: Any) -> tuple[Stage, ...]:
        """The chain; its third stage has a check."""
        return (*CHAIN[:2], replace(CHAIN[2], early_check=lambda manifest: check))

    def test_a_mistake_is_found_before_the_first_stage(self, tmp_path: Path) -> None:
        ui = Recorder()
        with pytest.raises(DataError, match="truncated"):
            go(make_manifest(tmp_path), tmp_path / "run", self.checked(bad_data), ui=ui)
        assert ui.lines == []
        assert not (tmp_path / "run/first_out").exists()

    def test_a_crash_names_the_log_of_the_stage(self, tmp_path: Path) -> None:
        with pytest.raises(StageCrashed, match=r"logs/third\.log"):
            go(make_manifest(tmp_path), tmp_path / "run", self.checked(crash))

    def test_a_check_leaves_nothing(self, tmp_path: Path) -> None:
        ui = Recorder()
        stages = self.checked(third)
        go(make_manifest(tmp_path), tmp_path / "run", stages, ui=ui)
        assert ui.lines == FIRST_TIME
        assert names(tmp_path / "run/.partial") == []

    def test_nothing_is_checked_twice(self, tmp_path: Path) -> None:
        go(make_manifest(tmp_path), tmp_path / "run")
        stages = self.checked(bad_data)
        manifest = make_manifest(tmp_path, "benchmark.batch_sizes=[3]")
        # The third stage runs first, so it finds the mistake itself.
        assert go(manifest, tmp_path / "run", stages).rows[2].status == "ran"
        rows = go(manifest, tmp_path / "run", stages, from_stage="third").rows
        assert [row.status for row in rows] == ["reused", "reused", "ran"]

    def test_stages_that_do_not_run_are_not_checked(self, tmp_path: Path) -> None:
        stages = self.checked(bad_data)
        result = go(make_manifest(tmp_path), tmp_path / "run", stages, until_stage="second")
        assert len(result.rows) == 2


class TestReuse:
    @pytest.fixture(autouse=True)
    def first_run(self, tmp_path: Path, finished: Path) -> None:
        shutil.copytree(finished, tmp_path, dirs_exist_ok=True)

    def test_nothing_changed(self, tmp_path: Path) -> None:
        before = (tmp_path / "run/report.json").stat().st_mtime_ns
        began = time.process_time()
        result = go(make_manifest(tmp_path), tmp_path / "run", report=_refuses())
        assert time.process_time() - began < 1
        assert not result.worked
        assert result.report is not None
        assert (tmp_path / "run/report.json").stat().st_mtime_ns == before
        assert again(tmp_path) == [
            f"{name} reused: {UNCHANGED}" for name in ("first", "second", "third")
        ]

    def test_only_what_depends_on_a_setting(self, tmp_path: Path) -> None:
        change = "benchmark.batch_sizes=[4]"
        assert planned(tmp_path, change) == {
            "first": ("reuse", UNCHANGED),
            "second": ("reuse", UNCHANGED),
            "third": ("run", "benchmark.batch_sizes changed"),
        }
        assert again(tmp_path, change) == [
            f"first reused: {UNCHANGED}",
            f"second reused: {UNCHANGED}",
            "third runs: benchmark.batch_sizes changed",
            "third done",
            f"report runs: {CHANGED}",
            "report done",
        ]

    def test_early_cutoff(self, tmp_path: Path) -> None:
        """The plan assumes a changed output; the run finds the output unchanged."""
        assert planned(tmp_path, "train.seed=1") == {
            "first": ("run", "train.seed changed"),
            "second": ("run", "first runs again"),
            "third": ("run", "second runs again"),
        }
        assert again(tmp_path, "train.seed=1")[:4] == [
            "first runs: train.seed changed",
            "first done",
            f"second reused: {UNCHANGED}",
            f"third reused: {UNCHANGED}",
        ]

    def test_another_output_goes_on_down_the_chain(self, tmp_path: Path) -> None:
        assert again(tmp_path, "train.seed=10")[:5] == [
            "first runs: train.seed changed",
            "first done",
            "second runs: the output of first changed",
            "second done",
            "third runs: the output of second changed",
        ]

    def test_input_file(self, tmp_path: Path) -> None:
        (tmp_path / "weights.bin").write_bytes(b"others")
        assert planned(tmp_path)["first"] == ("run", "weights.bin changed")

    def test_library_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        versions = {**fingerprint.library_versions(), "paddlepaddle": "3.3.0"}
        monkeypatch.setattr("job.pipeline.run.library_versions", lambda: versions)
        action, reason = planned(tmp_path)["third"]
        assert action == "run"
        assert reason.startswith("paddlepaddle 3.2.2 -> 3.3.0")

    def test_many_reasons_are_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        versions = dict.fromkeys(fingerprint.library_versions(), "0")
        monkeypatch.setattr("job.pipeline.run.library_versions", lambda: versions)
        assert planned(tmp_path)["first"][1].endswith(" and 3 more")

    def test_damage(self, tmp_path: Path) -> None:
        (tmp_path / "run/second_out/deep/copy.txt").unlink()
        assert planned(tmp_path)["second"] == ("run", "second_out/deep/copy.txt is missing")
        assert f"third reused: {UNCHANGED}" in again(tmp_path)

    def test_from(self, tmp_path: Path) -> None:
        assert planned(tmp_path, from_stage="second") == {
            "first": ("reuse", UNCHANGED),
            "second": ("run", "--from second"),
            "third": ("run", "--from second"),
        }
        lines = again(tmp_path, from_stage="second")
        assert "third runs: --from second" in lines

    def test_from_report(self, tmp_path: Path) -> None:
        lines = again(tmp_path, from_stage="report")
        assert lines[-2:] == ["report runs: --from report", "report done"]
        assert f"third reused: {UNCHANGED}" in lines

    def test_gates_change_the_report_alone(self, tmp_path: Path) -> None:
        lines = again(tmp_path, "gates.min_speedup=3")
        assert [line.split()[0] for line in lines] == [
            "first",
            "second",
            "third",
            "report",
            "report",
        ]

    def test_a_note_changes_the_report_alone(self, tmp_path: Path) -> None:
        slow = replace(REPORTING, comparable=False, notes=("slow ISA",))
        result = go(make_manifest(tmp_path), tmp_path / "run", report=slow)
        assert not result.worked
        assert result.report is not None
        assert (result.report["comparable"], result.report["notes"]) == (False, ["slow ISA"])

    def test_source_of_a_stage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = {"fake_stages": "another text"}
        monkeypatch.setattr(fingerprint, "source_digests", lambda *_: found)
        assert "fake_stages changed" in planned(tmp_path)["first"][1]


def _refuses() -> ReportConfig:
    def build(*_: object) -> dict[str, Any]:
        raise AssertionError("the report must not be made again")

    return ReportConfig(build=build, render=render)


class TestUntil:
    def test_stops_after_the_stage(self, tmp_path: Path) -> None:
        result = go(make_manifest(tmp_path), tmp_path / "run", until_stage="second")
        assert [row.name for row in result.rows] == ["first", "second"]
        assert result.report is None
        assert not (tmp_path / "run/report.json").exists()
        assert f"third runs: {NO_RESULT}" in again(tmp_path)

    def test_what_is_left_of_an_earlier_run_is_named(self, tmp_path: Path) -> None:
        go(make_manifest(tmp_path), tmp_path / "run")
        ui = Recorder()
        go(make_manifest(tmp_path), tmp_path / "run", ui=ui, until_stage="first")
        assert ui.messages == []
        go(
            make_manifest(tmp_path, "train.seed=20"),
            tmp_path / "run",
            ui=ui,
            from_stage="first",
            until_stage="first",
        )
        warnings = [text.split()[2] for text in ui.messages if text.startswith("warning storage: ")]
        assert warnings == ["--until", "second_out/", "third_out/"]

    def test_the_report_that_a_run_removes_is_named_before_the_first_stage(
        self, tmp_path: Path
    ) -> None:
        output = tmp_path / "run"
        go(make_manifest(tmp_path), output)
        for seed, removes in ((20, True), (30, False)):
            ui = Recorder()
            manifest = make_manifest(tmp_path, f"train.seed={seed}")
            go(manifest, output, ui=ui, until_stage="second")
            named = [text for text in ui.messages if "--until second" in text]
            assert len(named) == removes, ui.messages
            if removes:
                assert "stage first" in named[0]
                assert str(output) in named[0]
                # The stage first also writes a message.
                assert ui.messages[0] == named[0]
                assert "warning first: tens written" in ui.messages
        assert not (output / "report.json").exists()

    def test_a_run_that_writes_a_report_warns_of_nothing(self, tmp_path: Path) -> None:
        go(make_manifest(tmp_path), tmp_path / "run")
        ui = Recorder()
        go(make_manifest(tmp_path, "train.seed=20"), tmp_path / "run", ui=ui, until_stage="report")
        assert "--until" not in "".join(ui.messages)

    def test_until_report_is_everything(self, tmp_path: Path) -> None:
        assert again(tmp_path, until_stage="report") == FIRST_TIME

    def test_unknown_stage(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"--from: .*'secnd'.* second\?"):
            again(tmp_path, from_stage="secnd")
        with pytest.raises(UsageError, match=r"--until: .*'x'\n.*first, second, third, report"):
            planned(tmp_path, until_stage="x")

    def test_until_before_from(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"--until first .* --from second"):
            again(tmp_path, from_stage="second", until_stage="first")
        with pytest.raises(UsageError, match=r"--until first .* --from report"):
            again(tmp_path, from_stage="report", until_stage="first")


class TestInterrupted:
    def test_resumes_after_sigkill(self, tmp_path: Path) -> None:
        chain = (stage("resumable"),)
        manifest = make_manifest(tmp_path)
        with pytest.raises(StageCrashed, match=r"resumable .* SIGKILL"):
            go(manifest, tmp_path / "run", chain)
        assert not (tmp_path / "run/resumable_out").exists()
        (planned_stage,) = plan_of(manifest, tmp_path / "run", chain)
        assert planned_stage.reason.endswith(RESUMES)
        # Unfinished work is from an earlier run, so the reason must not deny earlier work.
        assert "no earlier" not in planned_stage.reason
        assert "no finished" in planned_stage.reason
        ui = Recorder()
        result = go(manifest, tmp_path / "run", chain, ui=ui)
        assert RESUMES in ui.lines[0]
        assert result.report is not None
        assert result.report["records"]["resumable"] == {"began_at": 5}

    def test_without_a_checkpoint_it_begins_anew(self, tmp_path: Path) -> None:
        chain = (stage("resumable"),)
        manifest = make_manifest(tmp_path)
        with pytest.raises(StageCrashed, match="SIGKILL"):
            go(manifest, tmp_path / "run", chain)
        (tmp_path / "run/.partial/resumable/checkpoints/count.txt").unlink()
        (tmp_path / "run/.partial/resumable/metrics.jsonl").write_text("{}")
        (planned_stage,) = plan_of(manifest, tmp_path / "run", chain)
        assert planned_stage.reason == NO_RESULT

    def test_changed_settings_begin_anew(self, tmp_path: Path) -> None:
        work = replace(stage("resumable"), settings=lambda manifest: {"seed": manifest.train.seed})
        for seed in ("train.seed=1", "train.seed=2"):
            with pytest.raises(StageCrashed, match="SIGKILL"):
                go(make_manifest(tmp_path, seed), tmp_path / "run", (work,))

    def test_failures_are_not_remembered(self, tmp_path: Path) -> None:
        for _ in range(2):
            ui = Recorder()
            with pytest.raises(DataError, match=r"cat\.png is truncated"):
                chain = (stage("first"), stage("bad_data", "first"))
                go(make_manifest(tmp_path), tmp_path / "run", chain, ui=ui)
            assert ui.lines[-1] == f"bad_data runs: {NO_RESULT}"
        assert ui.lines[0] == f"first reused: {UNCHANGED}"

    def test_finished_but_not_yet_published(self, tmp_path: Path) -> None:
        again(tmp_path)
        root = tmp_path / "run"
        (root / "second_out").rename(root / ".partial" / "second")
        assert f"second reused: {UNCHANGED}" in again(tmp_path)

    def test_old_report_goes_when_a_part_changes(self, tmp_path: Path) -> None:
        again(tmp_path)
        chain = (CHAIN[0], stage("second", "first", work=stage("crash").run))
        with pytest.raises(StageCrashed, match="ZeroDivisionError"):
            go(make_manifest(tmp_path, "train.seed=10"), tmp_path / "run", chain)
        assert not (tmp_path / "run/report.json").exists()


class TestRefusals:
    def test_output_of_another_run(self, tmp_path: Path) -> None:
        with (
            LocalOutput(tmp_path / "run").locked(),
            pytest.raises(OutputError, match=f"process {os.getpid()}"),
        ):
            again(tmp_path)

    def test_a_folder_with_the_users_things(self, tmp_path: Path) -> None:
        (tmp_path / "first_out").mkdir()
        with pytest.raises(OutputError, match="first_out "):
            go(make_manifest(tmp_path), tmp_path)

    def test_a_report_that_cannot_be_made_leaves_none(self, tmp_path: Path) -> None:
        def broken(report: object) -> dict[str, str]:
            raise OutputError("report.json: 1 fault")

        with pytest.raises(OutputError, match="1 fault"):
            again(tmp_path, report=ReportConfig(build=build_report, render=broken))
        assert not (tmp_path / "run/report.json").exists()
        assert again(tmp_path)[-1] == "report done"
