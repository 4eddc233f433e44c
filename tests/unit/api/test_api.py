"""``from job import run, validate, load_report``, as a program uses it."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import fake_cli
import forked
import pytest
from fake_cli import job
from fake_stages import make_manifest
from sample_manifest import MINIMAL
from sample_report import sample_report

from job import load_report, validate
from job.api import mlflow_log
from job.errors import DataError, ManifestError, UsageError
from job.manifest import Manifest
from job.pipeline.run import RunResult
from job.pipeline.stage_runner import StageRow
from job.process.environment import environment

PROGRAM = """
import fake_cli
fake_cli.install({stages!r}, failing={failing}, flags={flags!r})
from job import load_report, run
result = run({manifest}, output={output!r}, overrides=["train.seed=5"])
print(result.worked, result.failure and result.failure.exit_code, result.report["status"])
print(load_report(result.output) == result.report)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.json").write_text(json.dumps(make_manifest(tmp_path).resolved))
    return tmp_path


def python(code: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return forked.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment(1), capture_output=True, text=True
    )


def program(manifest: str, *, failing: bool = False) -> str:
    return PROGRAM.format(
        stages=fake_cli.CHAIN,
        failing=failing,
        flags=fake_cli.FLAGS,
        manifest=manifest,
        output="out",
    )


def test_run_and_load(folder: Path) -> None:
    done = python(program("'m.json'"), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True None passed", "True"]
    assert "third: done" in done.stderr
    assert (folder / "out/report.html").exists()


def test_a_mapping_and_a_failed_gate(folder: Path) -> None:
    """The result is returned, because all files are written."""
    (folder / "m.json").rename(folder / "other.json")
    manifest = "__import__('json').load(open('other.json'))"
    done = python(program(manifest, failing=True), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True 3 gate_failed", "True"]


def test_validate() -> None:
    document = {**MINIMAL, "data": {"format": "digits", "mean": [0.5], "std": [0.5]}}
    document["baseline"] = {"train": {"epochs": 1, "base_lr": 0.1}}
    manifest = validate(document, overrides=["model.input_shape=[1, 8, 8]", "train.seed=4"])
    assert isinstance(manifest, Manifest)
    assert manifest.resolved["train"]["seed"] == manifest.train.seed == 4
    with pytest.raises(ManifestError) as caught:
        validate({**MINIMAL, "nam": "x", "version": 2.5})
    assert {"/nam", "/version"} <= {fault.pointer for fault in caught.value.faults}


def test_validate_a_path(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json"):
        validate(folder / "none.json")


def test_load_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_report(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(sample_report()))
    assert load_report(tmp_path)["status"] == "passed"
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(DataError, match="required property"):
        load_report(str(tmp_path))


def test_import_is_light_and_complete() -> None:
    """`import job` loads no other module of the job; the public names are the documented ones."""
    code = (
        "import sys, job; print([m for m in sys.modules if m.startswith('job.')]); "
        "print(all(callable(getattr(job, name)) for name in ('run', 'validate', 'load_report')))"
        "; print(any(m in sys.modules for m in ('paddle', 'boto3', 'matplotlib', 'mlflow')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "True", "False"], done.stderr


def test_unknown_names_are_rejected() -> None:
    import job as package

    with pytest.raises(AttributeError, match="runn"):
        _ = package.runn


class TestMlflow:
    """With a stand-in for the package mlflow, which writes its calls to a file."""

    FAKE = """
import json
from contextlib import contextmanager
from types import SimpleNamespace

class MlflowException(Exception):
    pass

exceptions = SimpleNamespace(MlflowException=MlflowException)

def _note(name, *values):
    with open("calls.jsonl", "a") as file:
        file.write(json.dumps([name, *values]) + "\\n")

@contextmanager
def start_run(run_name):
    if run_name == "refused":
        raise MlflowException("no, http://user:secret@tracking")
    if run_name == "full":
        raise OSError(28, "No space left on device")
    _note("run", run_name)
    yield

def log_params(values):
    assert len(values) <= 100
    _note("params", values)

def log_metrics(values):
    _note("metrics", values)

def set_tag(name, value):
    _note("tag", name, value)

def log_text(text, name):
    _note("text", name, len(text))
"""

    @pytest.fixture
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        (tmp_path / "mlflow.py").write_text(self.FAKE)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.chdir(tmp_path)
        yield
        sys.modules.pop("mlflow", None)

    def log(self, name: str = "tiny", status: str = "ran") -> list[str]:
        warnings: list[str] = []
        report = {**sample_report(), "name": name}
        rows = (StageRow("benchmark", status, 1.0, "0"),)
        said: list[str] = []
        mlflow_log.log(RunResult(Path("out"), rows, report), said.append, warnings.append)
        expected = status == "ran" and "MLFLOW_TRACKING_URI" in os.environ
        assert len(said) == expected
        assert not any("secret" in text for text in said)
        return warnings

    def test_parameters_metrics_and_report(
        self, installed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:mlruns")
        assert self.log() == []
        calls = [json.loads(line) for line in Path("calls.jsonl").read_text().splitlines()]
        (parameters,) = (rest[0] for name, *rest in calls if name == "params")
        assert parameters["train.epochs"] == "2"
        assert parameters["version.paddlepaddle"] == "3.2.2"
        (metrics,) = (rest[0] for name, *rest in calls if name == "metrics")
        report = sample_report()
        assert metrics["int8.top1"] == report["accuracy"]["int8"]["top1"]
        assert metrics["speedup.all.batch1.threads1.instances1"] == report["benchmark"][0]["ratio"]
        assert metrics["int8.bytes"] == report["models"]["int8"]["bytes"]
        texts = {rest[0] for name, *rest in calls if name == "text"}
        assert texts >= {"report.html", "report.json"}

    @pytest.mark.parametrize(("name", "reason"), [("refused", "no, "), ("full", "No space left")])
    def test_any_failure_is_a_warning_without_the_password(
        self, installed: None, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@tracking")
        (warning,) = self.log(name)
        assert reason in warning
        assert "@tracking" in warning
        assert "secret" not in warning

    def test_an_installation_that_cannot_be_imported_is_a_warning(
        self, installed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("mlflow.py").write_text("from json import nothing")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:mlruns")
        (warning,) = self.log()
        assert "ImportError" in warning

    def test_a_run_that_reused_everything_is_not_logged_again(
        self, installed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:mlruns")
        assert self.log(status="reused") == []
        assert not Path("calls.jsonl").exists()

    def test_without_the_variable_nothing_is_logged(
        self, installed: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert self.log() == []
        assert not Path("calls.jsonl").exists()

    def test_not_installed(self, folder: Path) -> None:
        """Through the command line, which shows the warning."""
        done = job("run", "m.json", cwd=folder, variables={"MLFLOW_TRACKING_URI": "file:mlruns"})
        assert done.returncode == 0
        assert "mlflow is not installed" in done.stderr


def test_the_wheel_declares_the_types() -> None:
    root = Path(__file__).parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["job"]
    assert (root / "job/py.typed").exists()
