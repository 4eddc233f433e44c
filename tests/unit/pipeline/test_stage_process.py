"""Stages in child processes: their errors, crashes and stop signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_stages
import pytest
from fake_stages import COMMAND, Recorder, go, make_manifest, stage

from job.errors import DataError, JobError, OutputError, StageCrashed, Stopped, TrainingError
from job.pipeline.crash import explain_crash, last_lines
from job.pipeline.run import RunResult
from job.pipeline.stage_process import GRACE_SECONDS, function_name
from job.process.environment import environment
from job.process.signals import StopSignals


@pytest.fixture(autouse=True)
def child_processes() -> None:
    """Start processes as a run of a user does, instead of forking them."""


Start = Callable[[str], "subprocess.Popen[str]"]


def run(tmp_path: Path, name: str, ui: Recorder | None = None, *overrides: str) -> RunResult:
    return go(make_manifest(tmp_path, *overrides), tmp_path / "run", (stage(name),), ui=ui)


def alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "kind", "message"),
        [
            ("bad_data", DataError, r"^images/cat.png is truncated\nFetch it again\.$"),
            ("nan_loss", TrainingError, r"^the loss is NaN at step 7\nLower train.base_lr\.$"),
        ],
    )
    def test_expected_errors_arrive_as_they_were(
        self, tmp_path: Path, name: str, kind: type[JobError], message: str
    ) -> None:
        with pytest.raises(JobError, match=message) as caught:
            run(tmp_path, name)
        assert type(caught.value) is kind

    def test_unexpected_exception(self, tmp_path: Path) -> None:
        with pytest.raises(StageCrashed, match="ZeroDivisionError: division by zero") as caught:
            run(tmp_path, "crash")
        text = str(caught.value)
        assert "| ZeroDivisionError" in text
        assert f"{tmp_path}/run/logs/crash.log" in text
        assert "about to divide" in (tmp_path / "run/logs/crash.log").read_text()

    def test_record_that_is_no_json(self, tmp_path: Path) -> None:
        with pytest.raises(StageCrashed, match="Out of range float values"):
            run(tmp_path, "unjson")

    def test_end_without_a_record(self, tmp_path: Path) -> None:
        with pytest.raises(StageCrashed, match=r"quits .*code 3\b"):
            run(tmp_path, "quits")

    def test_killed(self, tmp_path: Path) -> None:
        with pytest.raises(StageCrashed, match=r"SIGKILL\n.*\d+\.\d GiB of \d+\.\d GiB"):
            run(tmp_path, "killed")

    def test_abort_quotes_the_log(self, tmp_path: Path) -> None:
        with pytest.raises(StageCrashed, match=r"SIGABRT.*\n.*bad_alloc"):
            run(tmp_path, "aborts")

    def test_crash_at_exit_after_the_record_is_no_failure(self, tmp_path: Path) -> None:
        result = run(tmp_path, "dies_after_record")
        assert result.report is not None
        assert result.report["records"] == {"dies_after_record": {"fine": True}}

    def test_processes_that_a_stage_leaves_are_ended(self, tmp_path: Path) -> None:
        result = run(tmp_path, "leaves_a_process")
        assert result.report is not None
        pid = result.report["records"]["leaves_a_process"]["pid"]
        wait_until(lambda: not alive(pid))

    def test_file_size_limit_in_a_stage(self, tmp_path: Path) -> None:
        code = (
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
            "import fake_stages; fake_stages.main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "run"), "writes_much"],
            env=environment(1),
            capture_output=True,
            text=True,
        )
        assert done.returncode == OutputError.exit_code
        assert done.stderr.startswith("cannot write")
        assert "ulimit" in done.stderr


class TestExplainCrash:
    def explain(self, tmp_path: Path, **changes: object) -> JobError:
        values = {
            "exception": "",
            "exit_code": -signal.SIGKILL,
            "peak_bytes": 1 << 30,
            "out_of_memory": False,
            "root": tmp_path,
        }
        return explain_crash("qat", tmp_path / "qat.log", 0, **{**values, **changes})  # type: ignore[arg-type]

    def test_out_of_memory(self, tmp_path: Path) -> None:
        error = self.explain(tmp_path, out_of_memory=True)
        assert "data.workers" in error.hint

    def test_near_the_limit(self, tmp_path: Path) -> None:
        assert "data.workers" in self.explain(tmp_path, peak_bytes=1 << 50).hint

    def test_killed_by_somebody(self, tmp_path: Path) -> None:
        error = self.explain(tmp_path)
        assert "1.0 GiB" in error.hint
        assert "data.workers" not in error.hint

    def test_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("job.pipeline.crash.free_bytes", lambda path: 0)
        error = self.explain(tmp_path, exception="RuntimeError: (External) Write failed")
        assert isinstance(error, OutputError)
        assert str(tmp_path) in error.message

    def test_only_this_attempts_lines_are_quoted(self, tmp_path: Path) -> None:
        log = tmp_path / "qat.log"
        log.write_text("old\n\x1b[31mnew\x1b[0m\n\n")
        assert last_lines(log, 4) == ("[31mnew [0m".replace("[31", " [31", 1),)


class TestStopping:
    def test_with_others_that_were_asked(self, tmp_path: Path) -> None:
        with pytest.raises(Stopped, match="stopped by SIGTERM in stage ends_with_others"):
            run(tmp_path, "ends_with_others")

    @pytest.fixture
    def start(self, tmp_path: Path) -> Iterator[Start]:
        started: list[subprocess.Popen[str]] = []

        def start(name: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [*COMMAND, str(tmp_path), str(tmp_path / "run"), name],
                env=environment(1),
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
            heard = tmp_path / "ui.txt"
            lines = 2 if name == "stubborn" else 1
            wait_until(lambda: heard.exists() and heard.read_text().count("\n") >= lines)
            return process

        yield start
        for process in started:
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()

    @pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_saves_and_goes_on(self, tmp_path: Path, start: Start, signum: int, code: int) -> None:
        process = start("patient")
        process.send_signal(signum)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code
        name = signal.Signals(signum).name
        assert f"stopped by {name} in stage patient\n" in stderr
        checkpoint = tmp_path / "run/.partial/patient/checkpoints/count.txt"
        step = int(checkpoint.read_text())
        result = go(make_manifest(tmp_path), tmp_path / "run", (_patient(),))
        assert result.report is not None
        assert result.report["records"]["patient"] == {"began_at": step}

    def test_grace_runs_out(self, tmp_path: Path) -> None:
        began = time.monotonic()
        with pytest.raises(JobError, match="stopped by SIGTERM in stage stubborn"):
            run(tmp_path, "stubborn", _Stops(signal.SIGTERM), "run.grace_seconds=1")
        assert time.monotonic() - began < GRACE_SECONDS

    def test_second_interrupt_kills_at_once(self, tmp_path: Path, start: Start) -> None:
        process = start("stubborn")
        pids = [int(line.split()[1]) for line in (tmp_path / "ui.txt").read_text().splitlines()]
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert alive(pids[0])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        for pid in pids:
            wait_until(lambda pid=pid: not alive(pid))

    def test_sigkill_takes_the_worker_along(self, tmp_path: Path, start: Start) -> None:
        process = start("stubborn")
        worker, grandchild = (
            int(line.split()[1]) for line in (tmp_path / "ui.txt").read_text().splitlines()
        )
        process.kill()
        process.communicate()
        wait_until(lambda: not alive(worker))
        os.kill(grandchild, signal.SIGKILL)
        # Nobody holds the lock any more.
        assert go(make_manifest(tmp_path), tmp_path / "run", (stage("third"),)).worked

    def test_between_stages(self) -> None:
        with pytest.raises(JobError, match=r"^stopped by SIGTERM\n"), StopSignals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    def test_handlers_are_given_back(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with StopSignals():
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is before

    def test_ignored_signals_stay_ignored(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with StopSignals():
                os.kill(os.getpid(), signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)


def _patient() -> object:
    return stage("patient")


class _Stops(Recorder):
    """Sends this process a signal at the stage's first word."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum

    def message(self, stage: str, text: str, level: str = "info") -> None:
        if self.signum:
            os.kill(os.getpid(), self.signum)
        self.signum = 0


def test_environment() -> None:
    variables = environment(3)
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["FLAGS_enable_pir_api"] == "0"
    assert variables["PATH"] == os.environ["PATH"]


def test_only_module_level_functions_can_be_run() -> None:
    assert function_name(fake_stages.first) == "fake_stages:first"
    with pytest.raises(ValueError, match="cannot be imported by name"):
        function_name(lambda: None)
