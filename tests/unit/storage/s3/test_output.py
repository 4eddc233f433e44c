"""A run with its output in S3, with stages in real processes and a real HTTP server."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import forked
import pytest
from fake_stages import (
    CHAIN,
    COMMAND,
    REPORTING,
    STEPS,
    Recorder,
    go,
    make_manifest,
    plan_of,
    stage,
)
from moto_server import S3Server, served

from job.errors import DataError, OutputError, StageCrashed, StorageError, TimeLimitReached
from job.pipeline import output_location
from job.pipeline.plan import RESUMES
from job.process.signals import StopSignals
from job.storage.s3 import index
from job.storage.s3.contents import Contents
from job.storage.s3.fetch_run import fetch
from job.storage.s3.index import INDEXES, RUNS, Index
from job.storage.s3.lease import HOLDER, LEASES
from job.storage.s3.objects import ObjectStore
from job.storage.s3.output import S3Output
from job.uri import S3Uri

COUNTING = (stage("first"), stage("counting"))


@pytest.fixture
def output(bucket: S3Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Uri:
    """A place in S3, and a scratch folder for it."""
    monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "scratch"))
    return bucket / "some/run"


@pytest.fixture(scope="module")
def original(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> S3Uri:
    """A finished run, to be copied."""
    base = tmp_path_factory.mktemp("original")
    place = s3_server.bucket() / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOB_SCRATCH", str(base / "scratch"))
        again(base, place)
    return place


@pytest.fixture
def finished(s3_server: S3Server, original: S3Uri, output: S3Uri) -> S3Uri:
    """A finished run of this test, from a machine that no longer exists."""
    s3_server.copy(original, output)
    return output


def again(base: Path, output: S3Uri, *overrides: str, **options: Any) -> list[str]:
    """Run and return what happened to stages."""
    ui = options.pop("ui", None) or Recorder()
    go(make_manifest(base, *overrides), output, ui=ui, **options)
    return ui.lines


def fresh(base: Path) -> None:
    """Lose the disk."""
    shutil.rmtree(base / "scratch")


def files(server: S3Server, output: S3Uri) -> Mapping[str, bytes]:
    """All that a reader finds, by path."""
    found = index.read(server.store, output)
    return {
        path: server.store.read(output / entry.object, sha256=entry.sha256)
        for path, entry in found.files.items()
    }


def keys(server: S3Server, place: S3Uri) -> list[str]:
    return [each.uri.key for each in server.store.list(place)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every request of runs in this process: method and key."""
    heard: list[tuple[str, str]] = []
    real = output_location.make_client

    def recording(settings: Any) -> Any:
        client = real(settings)
        client.meta.events.register(
            "provide-client-params.s3.*",
            lambda params, model, **kwargs: heard.append((model.name, params.get("Key", ""))),
        )
        return client

    monkeypatch.setattr(output_location, "make_client", recording)
    return heard


class TestReuse:
    def test_nothing_to_do_on_an_empty_disk(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path, asked: list[tuple[str, str]]
    ) -> None:
        first = again(tmp_path, output)
        assert "third done" in first
        before = files(s3_server, output)
        fresh(tmp_path)
        asked.clear()
        lines = again(tmp_path, output)
        assert lines == [f"{name} reused: nothing changed" for name in ("first", "second", "third")]
        assert files(s3_server, output) == before
        got = [key for method, key in asked if method == "GetObject" and f"/{RUNS}/" in key]
        assert {key.rpartition("/")[2] for key in got} == {
            "stage.json",
            "manifest.json",
            "report.json",
            "report.md",
            "report.html",
            ".report.json",
        }
        written = [key for method, key in asked if method == "PutObject"]
        assert all(f"/{LEASES}/" in key or f"/{INDEXES}/" in key for key in written)

    def test_only_what_a_stage_reads_is_fetched(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path, asked: list[tuple[str, str]]
    ) -> None:
        asked.clear()
        lines = again(tmp_path, finished, "benchmark.batch_sizes=[2]")
        assert lines[:3] == [
            "first reused: nothing changed",
            "second reused: nothing changed",
            "third runs: benchmark.batch_sizes changed",
        ]
        got = {key.rpartition("/")[2] for method, key in asked if method == "GetObject"}
        assert "metrics.jsonl" in got  # second_out's, which the third stage reads
        assert files(s3_server, finished)["third_out/sum.txt"] == b"3"

    def test_superseded_objects_go_and_others_stay(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        foreign = [
            finished / "notes.txt",
            finished / RUNS / "mine/data.bin",
            finished / "index/readme",
        ]
        for uri in foreign:
            s3_server.store.put(uri, b"not the job's")
        again(tmp_path, finished, "train.seed=20")
        found = index.read(s3_server.store, finished)
        named = {(finished / entry.object).key for entry in found.files.values()}
        left = set(keys(s3_server, finished / RUNS)) - named
        assert left == {foreign[1].key}
        assert all(s3_server.store.read(uri) == b"not the job's" for uri in foreign)

    def test_a_lost_object_has_its_stage_run_again(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        found = index.read(s3_server.store, finished)
        s3_server.store.delete([finished / found.files["second_out/metrics.jsonl"].object])
        lines = again(tmp_path, finished)
        assert lines[1] == "second runs: second_out/metrics.jsonl is missing"
        assert "second_out/metrics.jsonl" in files(s3_server, finished)

    @pytest.mark.parametrize("content", [b"0", b"other than it was"])
    def test_a_lost_object_is_not_replaced_by_a_file_that_was_changed_here(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path, content: bytes
    ) -> None:
        again(tmp_path, output)
        before = files(s3_server, output)
        found = index.read(s3_server.store, output)
        s3_server.store.delete([output / found.files["third_out/sum.txt"].object])
        (here,) = tmp_path.rglob("third_out/sum.txt")
        here.write_bytes(content)
        lines = again(tmp_path, output)
        assert lines[2] == "third runs: third_out/sum.txt was changed after the run"
        assert files(s3_server, output)["third_out/sum.txt"] == before["third_out/sum.txt"]

    def test_a_store_that_lost_all_gets_what_this_machine_has(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        again(tmp_path, output)
        before = files(s3_server, output)
        s3_server.store.delete([each.uri for each in s3_server.store.list(output)])
        ui = Recorder()
        lines = again(tmp_path, output, ui=ui)
        assert lines == [f"{name} reused: nothing changed" for name in ("first", "second", "third")]
        (warning,) = [text for text in ui.messages if text.startswith("warning storage: ")]
        assert str(output) in warning
        assert "3 finished stages" in warning
        assert files(s3_server, output) == before

    def test_what_lies_there_without_an_index_is_told_of(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        again(tmp_path, output)
        s3_server.store.delete([each.uri for each in s3_server.store.list(output / "index")])
        strays = len(keys(s3_server, output / RUNS))
        ui = Recorder()
        lines = again(tmp_path, output, ui=ui)
        assert lines == [f"{name} reused: nothing changed" for name in ("first", "second", "third")]
        kept = f"{strays} objects below {output / RUNS}"
        assert [text for text in ui.messages if kept in text]
        again(tmp_path, output, ui=(later := Recorder()))
        assert not [text for text in later.messages if kept in text]

    def test_a_store_that_lost_all_and_fails_when_it_is_refilled(
        self,
        s3_server: S3Server,
        output: S3Uri,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def failing(self: Contents, base: Index) -> None:
            raise StorageError("the store does not answer")

        again(tmp_path, output)
        s3_server.store.delete([each.uri for each in s3_server.store.list(output)])
        with monkeypatch.context() as patch:
            patch.setattr(Contents, "_sweep", failing)
            with pytest.raises(StorageError):
                again(tmp_path, output)
        lines = again(tmp_path, output)
        assert lines == [f"{name} reused: nothing changed" for name in ("first", "second", "third")]

    def test_a_store_that_lost_all_and_a_machine_that_has_the_records_only(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        again(tmp_path, finished)
        s3_server.store.delete([each.uri for each in s3_server.store.list(finished)])
        lines = again(tmp_path, finished)
        assert lines[0].startswith("first runs: first_out/tens.txt is missing")
        assert index.read(s3_server.store, finished).complete

    def test_a_result_stays_as_it_was_while_a_stage_is_at_work(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        """Nothing of the run that goes on is taken for a part of it, not even its manifest."""
        before = index.read(s3_server.store, finished).files
        code = stop_when(tmp_path, finished, lambda: steps_there(s3_server, finished) > 3)
        assert code == 128 + signal.SIGTERM
        begun = index.read(s3_server.store, finished)
        assert (begun.complete, begun.result) == (False, before)
        assert any(path.startswith(".partial/") for path in begun.files)

    def test_what_no_stage_leaves_any_more_may_be_lost(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        found = index.read(s3_server.store, finished)
        s3_server.store.delete([finished / found.files["third_out/sum.txt"].object])
        for _ in range(2):
            again(tmp_path, finished, stages=CHAIN[:2])
            left = index.read(s3_server.store, finished)
            assert left.complete
            assert not [path for path in left.files if path.startswith("third_out/")]

    def test_a_lost_object_of_a_later_stage_is_in_nobodys_way(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        found = index.read(s3_server.store, finished)
        s3_server.store.delete([finished / found.files["third_out/sum.txt"].object])
        lines = again(tmp_path, finished, "train.seed=20")
        assert [line.partition(":")[0] for line in lines if "runs" in line][:1] == ["first runs"]
        assert files(s3_server, finished)["third_out/sum.txt"] == b"3"

    def test_a_report_goes_with_what_it_tells_of(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        """Even if nothing is published before the run ends."""
        found = index.read(s3_server.store, finished)
        s3_server.store.delete([finished / found.files["first_out/tens.txt"].object])
        with pytest.raises(DataError):
            again(tmp_path, finished, stages=(stage("bad_data"), stage("third")))
        left = index.read(s3_server.store, finished)
        assert (left.complete, left.result) == (False, {})
        assert not [path for path in left.files if path.startswith("first_out/")]

    def test_a_run_without_a_report_says_that_the_earlier_report_stays(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        for seed, count in ((20, 1), (30, 0)):
            ui = Recorder()
            again(tmp_path, finished, f"train.seed={seed}", until_stage="first", ui=ui)
            named = [text for text in ui.messages if "--until first" in text]
            assert len(named) == count, ui.messages
            assert all(f"{finished} remains" in text for text in named)
            found = index.read(s3_server.store, finished)
            assert not found.complete
            assert "report.json" in found.result

    def test_a_lost_result_is_not_offered(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        again(tmp_path, finished, "train.seed=20", until_stage="first")
        begun = index.read(s3_server.store, finished)
        assert begun.before
        s3_server.store.delete([finished / begun.before["third_out/sum.txt"].object])
        again(tmp_path, finished, "train.seed=20", until_stage="second")
        later = index.read(s3_server.store, finished)
        assert later.before == {}
        named = {(finished / entry.object).key for entry in later.entries}
        assert set(keys(s3_server, finished / RUNS)) == named

    def test_a_changed_object_is_never_used(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        found = index.read(s3_server.store, finished)
        damaged = finished / found.files["second_out/metrics.jsonl"].object
        size = found.files["second_out/metrics.jsonl"].bytes
        s3_server.client.put_object(Bucket=damaged.bucket, Key=damaged.key, Body=bytes(size))
        with pytest.raises(DataError, match="SHA-256") as raised:
            again(tmp_path, finished, "benchmark.batch_sizes=[2]")
        assert "--from" in raised.value.hint
        fresh(tmp_path)
        again(tmp_path, finished, "benchmark.batch_sizes=[2]", from_stage="second")

    def test_what_was_changed_here_is_fetched_again(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        again(tmp_path, output)
        before = files(s3_server, output)
        (path,) = (tmp_path / "scratch").glob("*/second_out/metrics.jsonl")
        path.write_text("meddled with")
        lines = again(tmp_path, output, "benchmark.batch_sizes=[2]")
        assert lines[1] == "second reused: nothing changed"
        assert (
            files(s3_server, output)["second_out/metrics.jsonl"]
            == before["second_out/metrics.jsonl"]
        )

    def test_a_disk_that_is_behind(
        self,
        s3_server: S3Server,
        finished: S3Uri,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Another machine has gone on since: what stands here counts for nothing."""
        again(tmp_path, finished)
        monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "other"))
        again(tmp_path, finished, "train.seed=20")
        newest = files(s3_server, finished)
        monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "scratch"))
        lines = again(tmp_path, finished, "train.seed=20")
        assert lines == [f"{name} reused: nothing changed" for name in ("first", "second", "third")]
        assert files(s3_server, finished) == newest


class TestPlan:
    def test_writes_nothing(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path, asked: list[tuple[str, str]]
    ) -> None:
        before = keys(s3_server, finished)
        asked.clear()
        manifest = make_manifest(tmp_path, "quantize.moving_rate=0.5")
        planned = plan_of(manifest, finished, report=REPORTING)
        assert [(each.name, each.action) for each in planned] == [
            ("first", "reuse"),
            ("second", "run"),
            ("third", "run"),
            ("report", "run"),
        ]
        assert planned[1].writes == finished / "second_out"
        assert keys(s3_server, finished) == before
        assert {method for method, _ in asked} == {"GetObject", "HeadObject", "ListObjectsV2"}
        assert not list((tmp_path / "scratch").glob("*/*"))

    def test_knows_unfinished_work(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        stop_when(tmp_path, output, lambda: steps_there(s3_server, output) > 3)
        planned = plan_of(make_manifest(tmp_path), output, COUNTING)
        assert planned[1].reason.endswith(RESUMES)


def start(base: Path, output: S3Uri, *names: str, **variables: str) -> "subprocess.Popen[bytes]":
    make_manifest(base)
    with (base / "err.txt").open("wb") as err:
        return forked.Popen(
            [*COMMAND, str(base), str(output), *names],
            env=os.environ
            | {"PYTHONPATH": str(Path(__file__).parents[2]), "FAKE_STEP_SECONDS": "0.1"}
            | variables,
            stderr=err,
        )


def wait_until(happened: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, "the run ended before it happened"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def steps_there(server: S3Server, output: S3Uri) -> int:
    """The newest checkpoint that a reader finds."""
    found = index.newest(server.store, output)
    paths = found.files if found else ()
    steps = [int(path[-3:]) for path in paths if path.startswith(".partial/counting/checkpoints/")]
    return max(steps, default=0)


def stop_when(
    base: Path,
    output: S3Uri,
    happened: Callable[[], bool],
    signum: int = signal.SIGTERM,
    **variables: str,
) -> int:
    """Start a run that counts, signal it when something happens, return its exit code."""
    process = start(base, output, "first", "counting", **variables)
    wait_until(happened, process)
    process.send_signal(signum)
    code = process.wait(60)
    assert b"Traceback" not in (base / "err.txt").read_bytes()
    return code


class TestUnfinishedWork:
    def test_checkpoints_are_sent_while_it_runs_and_another_machine_goes_on(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        code = stop_when(
            tmp_path, output, lambda: steps_there(s3_server, output) > 3, signal.SIGKILL
        )
        assert code == -signal.SIGKILL
        reached = steps_there(s3_server, output)
        fresh(tmp_path)
        ui = Recorder()
        lines = again(tmp_path, output, stages=COUNTING, ui=ui)
        assert lines[1].startswith("counting runs: ")
        assert lines[1].endswith(RESUMES)
        assert f"info counting: resuming after step {reached}" in ui.messages
        found = files(s3_server, output)
        assert found["counting_out/metrics.jsonl"].split() == [b"%d" % s for s in range(1, 41)]
        assert found["counting_out/best"] == b"best of 40"
        assert not any(path.startswith(".partial") for path in found)

    def test_sigterm_sends_the_last_state(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        heard = tmp_path / "ui.txt"
        code = stop_when(
            tmp_path, output, lambda: heard.exists() and "counting 9" in heard.read_text()
        )
        assert code == 128 + signal.SIGTERM
        assert "stopped by SIGTERM in stage counting" in (tmp_path / "err.txt").read_text()
        assert steps_there(s3_server, output) >= 9
        fresh(tmp_path)
        assert RESUMES in again(tmp_path, output, stages=COUNTING)[1]

    def test_a_damaged_checkpoint_is_passed_over_and_named(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        stop_when(tmp_path, output, lambda: steps_there(s3_server, output) > 3)
        reached = steps_there(s3_server, output)
        found = index.read(s3_server.store, output)
        damaged = found.files[f".partial/counting/checkpoints/step-{reached:03d}"]
        uri = output / damaged.object
        s3_server.client.put_object(Bucket=uri.bucket, Key=uri.key, Body=bytes(damaged.bytes))
        fresh(tmp_path)
        ui = Recorder()
        again(tmp_path, output, stages=COUNTING, ui=ui)
        assert any(f"step-{reached:03d}" in text for text in ui.messages)
        assert f"info counting: resuming after step {reached - 1}" in ui.messages
        assert files(s3_server, output)["counting_out/metrics.jsonl"].count(b"\n") == STEPS

    def test_of_a_stage_that_fails_what_came_before_is_kept(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        with pytest.raises(StageCrashed, match="stage crash failed"):
            again(tmp_path, output, stages=(stage("first"), stage("crash", "first")))
        found = files(s3_server, output)
        assert "first_out/tens.txt" in found
        assert b"about to divide" in found["logs/crash.log"]
        fresh(tmp_path)
        assert again(tmp_path, output)[0] == "first reused: nothing changed"

    def test_the_jobs_time_is_limited(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        again(tmp_path, output, stages=COUNTING[:1])
        slow = {"FAKE_STEP_SECONDS": "0.3", "FAKE_OVERRIDES": "run.max_minutes=0.07"}
        process = start(tmp_path, output, "first", "counting", **slow)
        assert process.wait(60) == TimeLimitReached.exit_code == 1
        assert "run.max_minutes in stage counting\n" in (tmp_path / "err.txt").read_text()
        assert 0 < steps_there(s3_server, output) < STEPS
        fresh(tmp_path)
        assert RESUMES in again(tmp_path, output, stages=COUNTING)[1]


class TestTwoRuns:
    def test_the_second_stops_and_says_who_is_there(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # On a busy machine, the first run must not end before the second has seen a renewal.
        overrides = {"FAKE_OVERRIDES": "storage.lease_seconds=4", "FAKE_STEP_SECONDS": "0.2"}
        process = start(tmp_path, output, "first", "counting", **overrides)
        wait_until(lambda: steps_there(s3_server, output) > 0, process)
        monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "elsewhere"))
        with pytest.raises(OutputError, match=rf"process {process.pid} on .*, started"):
            again(tmp_path, output, stages=COUNTING)
        assert process.wait(60) == 0
        assert files(s3_server, output)["counting_out/best"] == b"best of 40"

    def test_one_that_was_paused_stops_and_changes_nothing(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        overrides = {"FAKE_OVERRIDES": "storage.lease_seconds=4"}
        process = start(tmp_path, output, "first", "counting", **overrides)
        wait_until(lambda: steps_there(s3_server, output) > 0, process)
        process.send_signal(signal.SIGSTOP)
        hide_the_process(s3_server, output)
        monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "elsewhere"))
        again(tmp_path, output, "storage.lease_seconds=4", stages=COUNTING)
        before = files(s3_server, output)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == OutputError.exit_code
        error = (tmp_path / "err.txt").read_text()
        # The other run has ended, and its process was this test.
        assert re.search(rf"{re.escape(str(output))} on .*: .*\bprocess {os.getpid()} on ", error)
        assert files(s3_server, output) == before

    def test_what_dead_runs_left_is_swept(
        self, s3_server: S3Server, finished: S3Uri, tmp_path: Path
    ) -> None:
        run = index.read(s3_server.store, finished).runs[0]
        s3_server.store.put(finished / RUNS / run / "9/fp32/orphan", b"never named")
        s3_server.client.create_multipart_upload(
            Bucket=finished.bucket, Key=(finished / RUNS / run / "9/big").key
        )
        again(tmp_path, finished)
        assert not any("orphan" in key for key in keys(s3_server, finished))
        assert "Uploads" not in s3_server.client.list_multipart_uploads(Bucket=finished.bucket)


def hide_the_process(server: S3Server, output: S3Uri) -> None:
    """Make the holder one of another machine, of which nobody here can tell that it lives."""
    (claim,) = server.store.list(output / LEASES)
    told = json.loads(server.store.read(claim.uri))
    told["process"], told["state"] = {"kernel": "another", "start": "1"}, HOLDER
    server.store.put(claim.uri, json.dumps(told).encode())


class TestStoreInTrouble:
    def test_stopping_in_time_though_nothing_answers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with served() as server:
            output = server.bucket() / "run"
            monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "scratch"))
            overrides = {"FAKE_OVERRIDES": "run.grace_seconds=5", "FAKE_STEP_SECONDS": "1"}
            process = start(tmp_path, output, "first", "counting", **overrides)
            wait_until(lambda: steps_there(server, output) > 0, process)
            server.pause()
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert process.wait(60) == 128 + signal.SIGTERM
            assert time.monotonic() - began < 2 * 5
            server.go_on()
        assert "stopped by SIGTERM" in (tmp_path / "err.txt").read_text()

    def test_little_time_to_stop_is_no_limit_for_those_who_are_not_stopped(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        class Slow(S3Output):
            def _commit(self, store: ObjectStore) -> None:
                time.sleep(0.3)
                super()._commit(store)

        store = s3_server.store
        folder = Slow(output, store, tmp_path / "slow", lease_seconds=60, say=print)
        with StopSignals() as stop, folder.locked():
            folder.keep_manifest({"version": 1})
            folder.sync(stop, 1.0)
        assert "manifest.json" in files(s3_server, output)

    def test_a_bucket_that_vanishes(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        process = start(tmp_path, output, "first", "counting")
        wait_until(lambda: steps_there(s3_server, output) > 0, process)
        for each in s3_server.store.list(S3Uri(output.bucket, "")):
            s3_server.store.delete([each.uri])
        empty_and_delete(s3_server, output.bucket)
        assert process.wait(60) == StorageError.exit_code
        said = (tmp_path / "err.txt").read_text()
        assert f"bucket {output.bucket} " in said
        assert "Traceback" not in said

    def test_no_such_bucket(self, s3_server: S3Server, output: S3Uri, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="bucket never-made"):
            again(tmp_path, S3Uri("never-made", "run"))


def empty_and_delete(server: S3Server, bucket: str) -> None:
    """Delete a bucket into which somebody is still writing."""
    for _ in range(100):
        for each in server.store.list(S3Uri(bucket, "")):
            server.store.delete([each.uri])
        try:
            server.client.delete_bucket(Bucket=bucket)
        except server.client.exceptions.ClientError:
            continue
        return
    raise AssertionError("the bucket is never empty")


class TestModes:
    def test_the_umask_is_respected(
        self, s3_server: S3Server, output: S3Uri, tmp_path: Path
    ) -> None:
        before = os.umask(0o027)
        try:
            again(tmp_path, output)
            fetch(s3_server.store, output, tmp_path / "fetched", print)
        finally:
            os.umask(before)
        found = [*(tmp_path / "scratch").rglob("*"), *(tmp_path / "fetched").rglob("*")]
        assert len(found) > 30
        for path in found:
            assert not stat.S_IMODE(path.stat().st_mode) & 0o027, path

    def test_the_folder_of_another_user_is_refused(
        self, output: S3Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        again(tmp_path, output, stages=CHAIN[:1])
        monkeypatch.setattr(output_location.os, "getuid", lambda: 12345)
        with pytest.raises(OutputError, match="belongs to another user"):
            again(tmp_path, output)


def test_an_index_that_is_not_listed(
    s3_server: S3Server, output: S3Uri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "names", lambda store, uri: ())
    with pytest.raises(StorageError, match=r"00000001-00000000\.json"):
        again(tmp_path, output)


def test_no_run_writes_behind_a_newer_one(
    s3_server: S3Server, finished: S3Uri, tmp_path: Path
) -> None:
    older = index.read(s3_server.store, finished)
    again(tmp_path, finished)
    late = Index(older.epoch, older.number + 5, older.runs, {})
    s3_server.store.put(finished / INDEXES / late.name, late.as_bytes())
    assert index.read(s3_server.store, finished).epoch == older.epoch + 1
