"""The command line in a process: output and exit codes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from defusedxml import ElementTree
from fake_cli import job, start
from fake_stages import make_manifest
from sample_report import sample_report

from job.pipeline.plan import NO_RESULT, RESUMES
from job.process.environment import environment
from job.stages import STAGES


def children_seconds() -> float:
    """CPU time of commands, which does not depend on the load of the machine, unlike wall time."""
    used = os.times()
    return used.children_user + used.children_system


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a manifest and its files."""
    manifest = make_manifest(tmp_path)
    (tmp_path / "m.json").write_text(json.dumps(manifest.resolved))
    return tmp_path


class TestRun:
    def test_to_the_end_and_again(self, folder: Path) -> None:
        began = children_seconds()
        done = job("run", "m.json", cwd=folder)
        assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
        assert "second: done in" in done.stderr
        assert "Report: " in done.stdout
        assert (folder / "runs/tiny/report.html").exists()
        ended = children_seconds()
        again = job("run", "m.json", cwd=folder)
        # Relative to the first run, because a busy machine is slower.
        assert children_seconds() - ended < 0.6 * (ended - began)
        assert again.returncode == 0
        assert "Nothing changed since the last run" in again.stdout
        assert "third: reused: " in again.stderr
        rendered = job("report", "runs/tiny", cwd=folder)
        assert rendered.returncode == 0, rendered.stderr
        assert "Report: runs/tiny/report.html" in rendered.stdout

    def test_json_lines(self, folder: Path) -> None:
        done = job("run", "-", "--log-format", "json", cwd=folder, stdin=_text(folder))
        assert done.returncode == 0, done.stderr
        events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
        assert events[0] == "stage_started"
        (line,) = done.stdout.splitlines()
        assert json.loads(line)["status"] == "passed"

    def test_failed_gate(self, folder: Path) -> None:
        for _ in range(2):
            done = job("run", "m.json", "--output", "out", cwd=folder, failing=True)
            assert done.returncode == 3, done.stderr
            assert re.search(r"1 of 1 .*\n  min_speedup: .*\b9\b.*\b2\b", done.stderr)
            assert (folder / "out/report.json").exists()

    def test_until(self, folder: Path) -> None:
        done = job("run", "m.json", "--until", "first", cwd=folder)
        assert done.returncode == 0
        assert "after first " in done.stdout
        assert not (folder / "runs/tiny/report.json").exists()

    @pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
    def test_a_variable_that_caps_a_part_of_the_kernels(self, folder: Path, name: str) -> None:
        done = job("run", "m.json", cwd=folder, variables={name: "AVX2"})
        assert done.returncode == 2
        assert f"{name}=AVX2" in done.stderr
        assert "benchmark.isa" in done.stderr
        assert not (folder / "runs").exists()
        assert job("run", "m.json", cwd=folder, variables={name: ""}).returncode == 0

    def test_the_report_before_a_later_run_is_marked(self, folder: Path) -> None:
        assert job("run", "m.json", cwd=folder).returncode == 0
        assert "note: " not in job("report", "runs/tiny", cwd=folder).stderr
        process = start("run", "m.json", cwd=folder, stages=[("patient",)])
        assert process.stderr is not None
        while "steps" not in process.stderr.readline():
            assert process.poll() is None
        process.kill()
        process.communicate(timeout=30)
        killed = job("report", "runs/tiny", cwd=folder)
        assert killed.returncode == 0
        assert killed.stderr.startswith("note: ")
        assert "runs/tiny: a later run" in killed.stderr
        shutil.rmtree(folder / "runs/tiny/.partial/patient")
        assert "note: " not in job("report", "runs/tiny", cwd=folder).stderr
        job("run", "m.json", cwd=folder, stages=[("bad_data",)])
        assert "a later run" in job("report", "runs/tiny", cwd=folder).stderr

    def test_sigterm(self, folder: Path) -> None:
        process = start("run", "m.json", cwd=folder, stages=[("patient",)])
        assert process.stderr is not None
        while "steps" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 143
        assert re.search(r"error: .*SIGTERM.* stage patient\n", stderr)

    @pytest.mark.parametrize(
        ("stage", "code", "message"),
        [
            ("bad_data", 4, "error: images/cat.png is truncated\nFetch it again."),
            ("crash", 1, "stage crash failed: ZeroDivisionError: division by zero"),
        ],
    )
    def test_failing_stage(self, folder: Path, stage: str, code: int, message: str) -> None:
        done = job("run", "m.json", cwd=folder, stages=[(stage,)])
        assert done.returncode == code
        assert message in done.stderr
        assert done.stdout == ""


class TestTerminationLog:
    """The termination message of a container, which Kubernetes shows."""

    @pytest.mark.parametrize(
        ("options", "start"),
        [
            ({}, "Done"),
            ({"failing": True}, "exit 3: 1 of 1 gates failed: min_speedup: "),
            ({"stages": [("bad_data",)]}, "exit 4: images/cat.png is truncated"),
        ],
    )
    def test_of_a_run(self, folder: Path, options: dict[str, Any], start: str) -> None:
        (folder / "termination-log").touch()
        job("run", "m.json", cwd=folder, **options)
        assert (folder / "termination-log").read_text().startswith(start)


class TestDryRun:
    def test_says_what_would_happen(self, folder: Path) -> None:
        done = job("run", "m.json", "--dry-run", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert NO_RESULT in done.stdout
        assert "weights.bin" in done.stdout
        assert not (folder / "runs").exists()

    def test_json(self, folder: Path) -> None:
        done = job("run", "m.json", "--dry-run", "--log-format", "json", cwd=folder)
        plans = [json.loads(line) for line in done.stdout.splitlines()]
        assert [plan["stage"] for plan in plans] == ["first", "second", "third", "report"]
        assert plans[0]["reads"] == [str(folder / "weights.bin")]

    def test_missing_input(self, folder: Path) -> None:
        (folder / "weights.bin").unlink()
        done = job("run", "m.json", "--dry-run", cwd=folder)
        assert done.returncode == 4
        assert "weights.bin (missing)" in done.stdout
        assert "weights.bin (read by first)" in done.stderr


class TestRefusals:
    def test_manifest(self, folder: Path) -> None:
        done = job("run", "m.json", "--set", "train.epochs=-1", "--set", "train.sed=1", cwd=folder)
        assert done.returncode == 2
        assert "m.json: 2 " in done.stderr
        assert "/train/epochs" in done.stderr
        assert "/train/sed" in done.stderr

    def test_errors_as_json(self, folder: Path) -> None:
        done = job("run", "none.json", "--log-format", "json", cwd=folder)
        assert done.returncode == 2
        assert json.loads(done.stderr)["kind"] == "UsageError"

    def test_usage(self, folder: Path) -> None:
        assert job("run", cwd=folder).returncode == 2
        assert job("run", "m.json", "--frm", "qat", cwd=folder).returncode == 2
        assert job("run", "m.json", "--from", "qatt", cwd=folder).returncode == 2

    def test_machine_without_vnni(self, folder: Path) -> None:
        done = job("run", "m.json", cwd=folder, flags=("avx512f",))
        assert done.returncode == 5
        assert "AVX512_VNNI" in done.stderr
        assert not (folder / "runs").exists()
        allowed = job("run", "m.json", "--allow-slow-isa", cwd=folder, flags=("avx512f",))
        assert allowed.returncode == 0, allowed.stderr
        report = json.loads((folder / "runs/tiny/report.json").read_bytes())
        assert report["comparable"] is False
        assert "AVX512_VNNI" in report["notes"][0]

    def test_code(self, folder: Path) -> None:
        model = '{"callable": "mine:net", "classes": 10, "input_shape": [3, 32, 32]}'
        arguments = ("run", "m.json", "--set", "model.name=null", "--set", f"model={model}")
        done = job(*arguments, cwd=folder)
        assert done.returncode == 2
        assert "/model/callable: 'mine:net'" in done.stderr
        allowed = job(*arguments, "--allow-code", "--dry-run", cwd=folder)
        assert (allowed.returncode, "mine:net" in allowed.stderr) == (2, True)
        (folder / "mine.py").write_text("def net(): ...")
        assert job(*arguments, "--allow-code", "--dry-run", cwd=folder).returncode == 0

    def test_uri(self, folder: Path) -> None:
        for output in ("gs://bucket/run", "s3://Bucket/run", "s3://bucket/../run"):
            done = job("run", "m.json", "--output", output, cwd=folder)
            assert done.returncode == 2
            assert f"error: '{output}': " in done.stderr

    @pytest.mark.parametrize("name", ["", " ", "x" * 300])
    def test_no_name(self, folder: Path, name: str) -> None:
        done = job("run", "m.json", "--output", name, cwd=folder)
        assert done.returncode == 2
        assert repr(name)[:20] in done.stderr

    def test_locked(self, folder: Path) -> None:
        from job.storage.local import LocalOutput

        with LocalOutput(folder / "runs/tiny").locked():
            done = job("run", "m.json", cwd=folder)
        assert done.returncode == 1
        assert f"process {os.getpid()}" in done.stderr

    def test_unexpected(self, folder: Path) -> None:
        (folder / "termination-log").touch()
        done = job("run", "m.json", cwd=folder, stages=[("broken",)])
        assert done.returncode == 1
        match = re.fullmatch(
            r"error: unexpected LookupError: a bug in the job "
            r"\(traceback: (.*); exit 1\)\n.*\n",
            done.stderr,
        )
        assert match, done.stderr
        last = (folder / "termination-log").read_text()
        assert last == "exit 1: unexpected LookupError: a bug in the job"
        trace = Path(match.group(1))
        assert "Traceback" in trace.read_text()
        trace.unlink()


@pytest.fixture
def matrix(folder: Path) -> Path:
    """The folder, its manifest now with two models."""
    document = json.loads(_text(folder))
    entries = [{"name": name, "set": {"train.seed": seed}} for name, seed in (("a", 1), ("b", 2))]
    (folder / "m.json").write_text(json.dumps({**document, "matrix": entries}))
    return folder


class TestMatrix:
    def test_to_the_end_and_again(self, matrix: Path) -> None:
        done = job("run", "m.json", cwd=matrix)
        assert done.returncode == 0, done.stderr
        assert "b: model 2 of 2" in done.stderr
        assert "2 models" in done.stdout
        assert "Report: runs/tiny/report.html" in done.stdout
        assert (matrix / "runs/tiny/b/report.html").exists()
        again = job("run", "m.json", "--log-format", "json", cwd=matrix)
        assert again.returncode == 0
        (line,) = again.stdout.splitlines()
        result = json.loads(line)
        assert (result["status"], result["worked"]) == ("passed", False)
        assert result["matrix"] == [{"model": name, "status": "passed"} for name in "ab"]
        assert json.loads(again.stderr.splitlines()[0])["event"] == "model_started"
        (matrix / "runs/tiny/report.md").unlink()
        rendered = job("report", "runs/tiny", cwd=matrix)
        assert "2 models" in rendered.stdout
        assert (matrix / "runs/tiny/report.md").exists()

    def test_failed_gates(self, matrix: Path) -> None:
        done = job("run", "m.json", cwd=matrix, failing=True)
        assert done.returncode == 3
        assert re.search(r"error: 2 of 2 models .*\n  a: .*\n  b: ", done.stderr)
        assert (
            json.loads((matrix / "runs/tiny/report.json").read_bytes())["status"] == "gate_failed"
        )

    def test_failing_models(self, matrix: Path) -> None:
        done = job("run", "m.json", cwd=matrix, stages=[("bad_data",)])
        assert done.returncode == 4
        assert "  b: images/cat.png is truncated" in done.stderr

    def test_dry_run(self, matrix: Path) -> None:
        done = job("run", "m.json", "--dry-run", cwd=matrix)
        assert done.returncode == 0, done.stderr
        assert "b: model 2 of 2\nfirst " in done.stdout
        assert "writes  runs/tiny/b/first_out" in done.stdout
        (matrix / "weights.bin").unlink()
        done = job("run", "m.json", "--dry-run", "--log-format", "json", cwd=matrix)
        assert done.returncode == 4
        plans = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(plan["model"], plan["stage"]) for plan in plans[:5]] == [
            ("a", "first"), ("a", "second"), ("a", "third"), ("a", "report"), ("b", "first"),
        ]  # fmt: skip

    def test_sigterm_ends_all_and_the_same_command_resumes(self, matrix: Path) -> None:
        process = start("run", "m.json", cwd=matrix, stages=[("patient",)])
        assert process.stderr is not None
        while "steps" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 143
        assert "b: model 2 of 2" not in stderr
        again = job("run", "m.json", "--dry-run", cwd=matrix, stages=[("patient",)])
        assert RESUMES in again.stdout

    def test_code_of_one_model(self, matrix: Path) -> None:
        model = '{"callable": "mine:net", "classes": 10, "input_shape": [3, 32, 32]}'
        done = job("run", "m.json", "--set", f"matrix.1.set.model={model}", cwd=matrix)
        assert "/model/callable: 'mine:net'" in done.stderr, done.stderr
        assert done.returncode == 2


class TestJunit:
    @pytest.mark.parametrize(("failing", "code"), [(False, 0), (True, 3)])
    def test_of_a_run(self, folder: Path, failing: bool, code: int) -> None:
        done = job("run", "m.json", "--junit", "gates.xml", cwd=folder, failing=failing)
        assert done.returncode == code, done.stderr
        (suite,) = ElementTree.parse(folder / "gates.xml").getroot()
        assert suite.attrib["failures"] == str(int(failing))

    def test_of_a_matrix_without_results(self, matrix: Path) -> None:
        assert job("merge", "m.json", "--junit", "gates.xml", cwd=matrix).returncode == 1
        suites = ElementTree.parse(matrix / "gates.xml").getroot()
        found = [(each.attrib["name"], each.attrib["errors"]) for each in suites]
        assert found == [("a", "1"), ("b", "1")]

    def test_of_a_finished_run(self, folder: Path) -> None:
        (folder / "report.json").write_text(json.dumps(sample_report()))
        assert job("report", ".", "--junit", "gates.xml", cwd=folder).returncode == 0
        cases = ElementTree.parse(folder / "gates.xml").getroot().iter("testcase")
        names = {gate["name"] for gate in sample_report()["gates"]}
        assert {case.attrib["name"] for case in cases} == names

    @pytest.mark.parametrize(
        "wrong", [("--until", "first", "--junit", "x"), ("--junit", "s3://b/x")]
    )
    def test_a_wrong_option_is_found_before_the_run(
        self, folder: Path, wrong: tuple[str, ...]
    ) -> None:
        done = job("run", "m.json", *wrong, cwd=folder)
        assert done.returncode == 2
        assert "--junit" in done.stderr
        assert not (folder / "runs").exists()


class TestReport:
    def test_no_report(self, folder: Path) -> None:
        done = job("report", ".", cwd=folder)
        assert done.returncode == 2
        assert "no report.json in" in done.stderr

    @pytest.mark.parametrize("text", ["", "[]", "{"])
    def test_broken_report(self, folder: Path, text: str) -> None:
        (folder / "report.json").write_text(text)
        done = job("report", ".", cwd=folder)
        assert done.returncode == 4
        assert "report.json: expected a JSON object" in done.stderr

    def test_report_that_is_none(self, folder: Path) -> None:
        (folder / "report.json").write_text("{}")
        done = job("report", ".", cwd=folder)
        assert done.returncode == 4
        assert "'accuracy' is a required property" in done.stderr
        assert "Traceback" not in done.stderr

    def test_rendered(self, folder: Path) -> None:
        (folder / "report.json").write_text(json.dumps(sample_report()))
        assert job("report", ".", cwd=folder).returncode == 0
        assert (folder / "report.md").exists()


class TestQuickCommands:
    def test_validate(self, folder: Path) -> None:
        (folder / "wrong.json").write_text('{"version": 1}')
        done = job("validate", "m.json", "wrong.json", "none.json", cwd=folder)
        assert done.returncode == 2
        assert done.stdout == "m.json: valid\n"
        assert "wrong.json: " in done.stderr
        assert "none.json" in done.stderr
        assert job("validate", "-", cwd=folder, stdin=_text(folder)).returncode == 0

    def test_validate_as_json(self, folder: Path) -> None:
        (folder / "wrong.json").write_text('{"version": 1, "name": "x", "nam": 1}')
        done = job("validate", "m.json", "wrong.json", "none.json", "--json", cwd=folder)
        assert done.returncode == 2
        valid, wrong, none = json.loads(done.stdout)
        assert valid == {"manifest": "m.json", "valid": True, "faults": [], "error": None}
        assert "/nam" in {fault["pointer"] for fault in wrong["faults"]}
        assert (none["valid"], none["faults"]) == (False, [])
        assert "none.json" in none["error"]["message"]

    def test_explain(self, folder: Path) -> None:
        done = job("explain", "quantize.moving_rate", cwd=folder)
        assert done.returncode == 0
        assert "/quantize/moving_rate" in done.stdout
        assert job("explain", "quantize.movin_rate", cwd=folder).returncode == 2

    def test_help_lists_every_stage(self, folder: Path) -> None:
        text = " ".join(job("run", "--help", cwd=folder).stdout.split())
        names = " ".join(stage.name for stage in STAGES)
        assert f"Stages: {names} report" in text

    def test_version_and_help(self, folder: Path) -> None:
        assert job("--version", cwd=folder).stdout.startswith("job 0.")
        assert re.search(r"\n +3  a gate failed", job("--help", cwd=folder).stdout)
        assert "job run manifests/digits.json --dry-run" in job("run", "-h", cwd=folder).stdout

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["explain", "train.base_lr"], ["validate", "m.json"]]
    )
    def test_answers_at_once(self, folder: Path, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "job", *arguments]
        used = []
        for _ in range(4):
            before = children_seconds()
            subprocess.run(command, cwd=folder, env=environment(1), capture_output=True, check=True)
            used.append(children_seconds() - before)
        assert min(used) < 0.4


def _text(folder: Path) -> str:
    return (folder / "m.json").read_text()
