"""The command line with output in S3: run, report, fetch, a matrix, and no secrets anywhere."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fake_cli import job
from fake_stages import make_manifest, names
from moto_server import S3Server

from job.errors import DataError, OutputError, StorageError, UsageError
from job.storage.s3 import index
from job.storage.s3.fetch_run import fetch
from job.storage.s3.objects import ObjectStore
from job.uri import S3Uri


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest and its files, and a scratch folder."""
    manifest = make_manifest(tmp_path)
    (tmp_path / "m.json").write_text(json.dumps(manifest.resolved))
    monkeypatch.setenv("JOB_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path


@pytest.fixture(scope="module")
def original(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[S3Uri, S3Uri]:
    """A finished run and a finished matrix, to be copied."""
    base = tmp_path_factory.mktemp("original")
    (base / "m.json").write_text(json.dumps(make_manifest(base).resolved))
    place = s3_server.bucket()
    variables = {"JOB_SCRATCH": str(base / "scratch")}
    done = job("run", "m.json", "--output", str(place / "run"), cwd=base, variables=variables)
    assert done.returncode == 0, done.stderr
    add_matrix(base)
    done = job("run", "m.json", "--output", str(place / "both"), cwd=base, variables=variables)
    assert done.returncode == 0, done.stderr
    assert "2 models" in done.stdout
    return place / "run", place / "both"


@pytest.fixture
def finished(s3_server: S3Server, original: tuple[S3Uri, S3Uri], bucket: S3Uri) -> S3Uri:
    """A finished run in S3."""
    s3_server.copy(original[0], bucket / "run")
    return bucket / "run"


@pytest.fixture
def both(s3_server: S3Server, original: tuple[S3Uri, S3Uri], bucket: S3Uri, folder: Path) -> S3Uri:
    """A finished matrix of two models in S3."""
    add_matrix(folder)
    s3_server.copy(original[1], bucket / "both")
    return bucket / "both"


def add_matrix(folder: Path) -> None:
    document = json.loads((folder / "m.json").read_text())
    entries = [{"name": name, "set": {"train.seed": seed}} for name, seed in (("a", 1), ("b", 2))]
    (folder / "m.json").write_text(json.dumps({**document, "matrix": entries}))


class TestRun:
    def test_to_the_end_and_again(self, folder: Path, finished: S3Uri) -> None:
        again = job("run", "m.json", "--output", str(finished), cwd=folder)
        assert again.returncode == 0
        assert "Nothing changed since the last run" in again.stdout
        assert f"job fetch {finished} FOLDER" in again.stdout
        assert "scratch" not in again.stdout

    def test_the_manifest_may_name_it(self, folder: Path, finished: S3Uri) -> None:
        document = json.loads((folder / "m.json").read_text())
        (folder / "m.json").write_text(json.dumps({**document, "output": f"{finished}/"}))
        plan = job("run", "m.json", "--dry-run", cwd=folder)
        assert plan.returncode == 0, plan.stderr
        assert f"writes  {finished}/first_out" in plan.stdout
        assert plan.stdout.count("reuse ") == 3

    def test_json(self, folder: Path, finished: S3Uri) -> None:
        again = job("run", "m.json", "--output", str(finished), "--log-format", "json", cwd=folder)
        (line,) = again.stdout.splitlines()
        assert json.loads(line)["output"] == str(finished)

    def test_no_bucket(self, folder: Path, s3_server: S3Server) -> None:
        done = job("run", "m.json", "--output", "s3://never-made/run", cwd=folder)
        # Kubernetes retries exit code 1, but the bucket would still be missing.
        assert done.returncode == StorageError.exit_code == 4
        assert "error: s3://never-made/run/" in done.stderr
        assert s3_server.url in done.stderr
        assert "bucket never-made" in done.stderr

    def test_a_slash_too_few(self, folder: Path) -> None:
        done = job("run", "m.json", "--output", "s3:/results/run", cwd=folder)
        assert done.returncode == UsageError.exit_code
        assert "'s3://results/run'?" in done.stderr
        assert not (folder / "s3:").exists()

    @pytest.mark.parametrize("command", ["run", "merge"])
    def test_keys_that_would_be_too_long(self, folder: Path, command: str) -> None:
        """They are rejected before any request."""
        add_matrix(folder)
        nowhere = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
        output = f"s3://bucket/{'a' * 1000}"
        done = job(command, "m.json", "--output", output, cwd=folder, variables=nowhere)
        assert done.returncode == UsageError.exit_code
        assert "1,122 bytes" in done.stderr
        assert output not in done.stderr
        assert not (folder / "scratch").exists()

    def test_a_scratch_folder_that_cannot_be_written(self, folder: Path, bucket: S3Uri) -> None:
        (folder / "scratch").write_text("")
        done = job("run", "m.json", "--output", str(bucket / "run"), cwd=folder)
        assert done.returncode == 1
        assert str(folder / "scratch") in done.stderr
        assert "JOB_SCRATCH" in done.stderr


class TestReport:
    def test_a_folder_that_cannot_be_created(self, folder: Path, finished: S3Uri) -> None:
        done = job("report", str(finished), "--output", "/proc/none", cwd=folder)
        assert done.returncode == OutputError.exit_code
        assert "/proc/none" in done.stderr
        assert "bug" not in done.stderr

    def test_prints_and_writes_only_where_asked(self, folder: Path, finished: S3Uri) -> None:
        before = sorted(folder.rglob("*"))
        done = job("report", str(finished), cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "Table I" in done.stdout
        assert sorted(folder.rglob("*")) == before
        done = job("report", str(finished), "--output", "rendered", cwd=folder)
        assert names(folder / "rendered") == ["report.html", "report.json", "report.md"]
        assert "Report: rendered/report.html" in done.stdout

    def test_none(self, folder: Path, bucket: S3Uri) -> None:
        done = job("report", str(bucket / "none"), cwd=folder)
        assert (done.returncode, done.stderr.count("\n")) == (UsageError.exit_code, 2)
        assert str(bucket / "none") in done.stderr

    def test_unfinished(self, folder: Path, bucket: S3Uri) -> None:
        output = str(bucket / "run")
        job("run", "m.json", "--output", output, "--until", "first", cwd=folder)
        for command in (["report", output], ["fetch", output, "here"]):
            done = job(*command, cwd=folder)
            assert done.returncode == 2
            assert output in done.stderr
            assert "first_out" in done.stderr

    def test_a_stale_stage_is_not_called_finished(self, folder: Path, bucket: S3Uri) -> None:
        output = str(bucket / "run")
        job("run", "m.json", "--output", output, "--until", "second", cwd=folder)
        only = ("--set", "train.seed=20", "--until", "first")
        assert job("run", "m.json", "--output", output, *only, cwd=folder).returncode == 0
        done = job("report", output, cwd=folder)
        assert done.returncode == UsageError.exit_code
        assert "second_out/" in done.stderr
        assert "finished stages" not in done.stderr
        assert "stale" in done.stderr

    def test_damaged(self, folder: Path, finished: S3Uri, s3_server: S3Server) -> None:
        entry = index.read(s3_server.store, finished).files["report.json"]
        uri = finished / entry.object
        s3_server.client.put_object(Bucket=uri.bucket, Key=uri.key, Body=b"{}")
        done = job("report", str(finished), cwd=folder)
        assert done.returncode == DataError.exit_code
        assert "report.json" in done.stderr
        # One hint only, besides the note that the request is retried.
        notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
        assert done.stderr.count("\n") - len(notes) == 2

    def test_a_later_run_that_is_not_finished(
        self, folder: Path, finished: S3Uri, s3_server: S3Server
    ) -> None:
        """The earlier result stays available until the later run is finished."""
        before = index.read(s3_server.store, finished)
        only = ("--set", "train.seed=20", "--until", "second")
        done = job("run", "m.json", "--output", str(finished), *only, cwd=folder)
        assert done.returncode == 0, done.stderr
        shown = job("report", str(finished), cwd=folder)
        assert (shown.returncode, "Table I" in shown.stdout) == (0, True)
        assert shown.stderr.startswith(f"note: {finished}: ")
        assert shown.stderr.count("\n") == 1
        fetched = job("fetch", str(finished), "here", cwd=folder)
        assert shown.stderr in fetched.stderr
        assert digests(folder / "here") == {p: e.sha256 for p, e in sorted(before.files.items())}
        done = job("run", "m.json", "--output", str(finished), *only[:2], cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "first: reused" in done.stderr
        after = index.read(s3_server.store, finished)
        assert (after.complete, after.before) == (True, {})
        named = {entry.object for entry in after.entries}
        stored = s3_server.store.list(finished / "runs")
        assert {found.uri.key.removeprefix(finished.below) for found in stored} == named
        fetched = job("fetch", str(finished), "here", cwd=folder)
        assert (folder / "here/first_out/tens.txt").read_text() == "2"
        assert "note: " not in fetched.stderr

    def test_a_damaged_index(self, folder: Path, bucket: S3Uri, s3_server: S3Server) -> None:
        s3_server.store.put(bucket / "run/index/00000001-00000001.json", b"{")
        for command in (["report"], ["fetch"]):
            here = ["here"] if command == ["fetch"] else []
            done = job(*command, str(bucket / "run"), *here, cwd=folder)
            assert done.returncode == DataError.exit_code
            assert "00000001-00000001.json" in done.stderr


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


class TestFetch:
    def test_all_and_then_nothing(self, folder: Path, finished: S3Uri, s3_server: S3Server) -> None:
        done = job("fetch", str(finished), "here", cwd=folder)
        assert done.returncode == 0, done.stderr
        found = index.read(s3_server.store, finished)
        assert digests(folder / "here") == {p: e.sha256 for p, e in sorted(found.files.items())}
        assert " (0 files " in done.stdout
        again = job("fetch", str(finished), "here", cwd=folder)
        assert f" ({len(found.files)} files " in again.stdout

    def test_what_was_fetched_is_a_run_like_any_other(self, folder: Path, finished: S3Uri) -> None:
        job("fetch", str(finished), "here", cwd=folder)
        again = job("run", "m.json", "--output", "here", cwd=folder)
        assert "Nothing changed since the last run" in again.stdout

    def test_goes_on_and_mends(self, folder: Path, finished: S3Uri, s3_server: S3Server) -> None:
        here = folder / "here"
        fetch(s3_server.store, finished, here, print)
        whole = digests(here)
        (here / "first_out/tens.txt").unlink()
        (here / "report.md").write_text("cut off")
        done = fetch(s3_server.store, finished, here, print)
        assert digests(here) == whole
        assert done.files - done.there == 2

    def test_broken_off_it_holds_no_report(
        self, folder: Path, finished: S3Uri, s3_server: S3Server
    ) -> None:
        class Breaking(ObjectStore):
            def download(self, uri: S3Uri, path: Path, **given: Any) -> Any:
                if uri.key.endswith("third_out/sum.txt"):
                    raise OutputError("the power failed")
                return super().download(uri, path, **given)

        with pytest.raises(OutputError, match="the power failed"):
            fetch(Breaking(s3_server.client), finished, folder / "here", print)
        found = digests(folder / "here")
        assert "report.json" not in found
        assert "third_out/stage.json" not in found
        fetch(s3_server.store, finished, folder / "here", print)
        assert "report.json" in digests(folder / "here")

    def test_damaged(self, folder: Path, finished: S3Uri, s3_server: S3Server) -> None:
        entry = index.read(s3_server.store, finished).files["third_out/sum.txt"]
        uri = finished / entry.object
        s3_server.client.put_object(Bucket=uri.bucket, Key=uri.key, Body=b"7")
        with pytest.raises(DataError, match=r"third_out/sum\.txt.*SHA-256"):
            fetch(s3_server.store, finished, folder / "here", print)
        assert not (folder / "here/third_out/sum.txt").exists()

    def test_a_newer_run_meanwhile(
        self, folder: Path, finished: S3Uri, s3_server: S3Server
    ) -> None:
        ran: list[int] = []

        class Overtaken(ObjectStore):
            def download(self, uri: S3Uri, path: Path, **given: Any) -> Any:
                if not ran:
                    ran.append(1)
                    done = job(
                        "run", "m.json", "--output", str(finished), "--set", "train.seed=20",
                        cwd=folder,
                    )  # fmt: skip
                    assert done.returncode == 0, done.stderr
                return super().download(uri, path, **given)

        fetch(Overtaken(s3_server.client), finished, folder / "here", print)
        found = index.read(s3_server.store, finished)
        assert (folder / "here/first_out/tens.txt").read_text() == "2"
        assert digests(folder / "here") == {p: e.sha256 for p, e in sorted(found.files.items())}

    def test_a_folder_of_somebody_else(
        self, folder: Path, finished: S3Uri, s3_server: S3Server
    ) -> None:
        (folder / "here/first_out").mkdir(parents=True)
        (folder / "here/first_out/thesis.txt").write_text("mine")
        with pytest.raises(UsageError, match="first_out"):
            fetch(s3_server.store, finished, folder / "here", print)
        assert names(folder / "here") == ["first_out"]

    def test_a_record_of_somebody_else(
        self, folder: Path, finished: S3Uri, s3_server: S3Server
    ) -> None:
        here = folder / "here"
        (here / "first_out").mkdir(parents=True)
        (here / "first_out/stage.json").write_text('{"stage": "of my theatre"}')
        (here / "report.md").write_text("mine")
        with pytest.raises(UsageError, match="first_out"):
            fetch(s3_server.store, finished, here, print)
        assert (here / "report.md").read_text() == "mine"

    def test_into_s3(self, folder: Path, finished: S3Uri) -> None:
        for arguments in (
            ("fetch", str(finished), "s3://b/x"),
            ("report", str(finished), "--output", "s3://b/x"),
        ):
            done = job(*arguments, cwd=folder)
            assert done.returncode == UsageError.exit_code
            assert "expected a path on this machine, found 's3://b/x'" in done.stderr
        assert names(folder) == ["m.json", "weights.bin"]

    @pytest.mark.parametrize("wrong", ["m.json", "m.json/here", "/proc/here", "/sys/here", "own"])
    def test_a_folder_that_cannot_be_used_is_a_wrong_argument(
        self, folder: Path, finished: S3Uri, wrong: str
    ) -> None:
        (folder / "own").mkdir()
        (folder / "own/manifest.json").write_text("mine")
        before = names(folder)
        done = job("fetch", str(finished), wrong, cwd=folder)
        assert done.returncode == UsageError.exit_code == 2
        assert str(folder / wrong) in done.stderr
        assert "new or empty folder" in done.stderr
        # The settings of a run do not change where a fetch writes.
        assert "JOB_SCRATCH" not in done.stderr
        assert "bug" not in done.stderr
        assert names(folder) == before
        assert (folder / "own/manifest.json").read_text() == "mine"

    def test_no_uri(self, folder: Path) -> None:
        done = job("fetch", "runs/digits", "here", cwd=folder)
        assert done.returncode == UsageError.exit_code
        assert "s3://" in done.stderr


class TestMatrix:
    def test_again_report_and_fetch(self, folder: Path, both: S3Uri, s3_server: S3Server) -> None:
        assert index.read(s3_server.store, both / "b").complete
        again = job("run", "m.json", "--output", str(both), cwd=folder)
        assert "Nothing changed since the last run" in again.stdout
        shown = job("report", str(both), cwd=folder)
        assert "2 models" in shown.stdout
        fetched = job("fetch", str(both), "here", cwd=folder)
        assert fetched.returncode == 0, fetched.stderr
        assert (folder / "here/report.html").exists()
        assert (folder / "here/b/report.html").exists()
        again = job("run", "m.json", "--output", "here", cwd=folder)
        assert "Nothing changed since the last run" in again.stdout

    def test_the_report_goes_with_the_first_model_that_changes(
        self, folder: Path, both: S3Uri, s3_server: S3Server
    ) -> None:
        only = ("--from", "first", "--until", "first")
        done = job("run", "m.json", "--output", str(both), *only, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert not index.read(s3_server.store, both).complete
        shown = job("report", str(both), cwd=folder)
        assert "2 models" in shown.stdout
        fetched = job("fetch", str(both), "here", cwd=folder)
        assert fetched.returncode == UsageError.exit_code
        assert str(both) in fetched.stderr
        assert not (folder / "here").exists()


CANARIES = {
    "AWS_ACCESS_KEY_ID": "AKIACANARY4711",
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-secret-key",
    "AWS_SESSION_TOKEN": "canary-of-the-session-token",
}


def test_secrets_are_nowhere(
    folder: Path, finished: S3Uri, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials appear in no output and no file, in runs that succeed and runs that fail."""
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    (folder / "tmp").mkdir()
    run = ("run", "m.json", "--output", str(finished))
    as_json = ("--log-format", "json")
    wrong = {
        "AWS_MAX_ATTEMPTS": "2",
        "AWS_ENDPOINT_URL_S3": "http://me:canary-of-the-endpoint@127.0.0.1:9",
    }
    commands: list[tuple[tuple[str, ...], int, list[tuple[str]], dict[str, str]]] = [
        (("fetch", str(finished), "here"), 0, [], {}),
        ((*run, *as_json), 0, [], {}),
        ((*run,), 1, [("crash",)], {}),
        ((*run, *as_json), 4, [("bad_data",)], {}),
        ((*run,), 1, [("broken",)], {}),
        ((*run, *as_json, "--set", "storage.secret_key=canary-of-the-manifest"), 2, [], {}),
        ((*run, "--set", "storage.endpoint_url=http://me:canary@h"), 2, [], {}),
        (("run", "m.json", "--output", "s3://never-made/run", *as_json), 4, [], {}),
        (("report", str(finished)), 1, [], wrong),
        (("report", str(finished)), 4, [], {"AWS_ACCESS_KEY_ID": "AKIACANARY\n4711"}),
        (("report", str(finished)), 2, [], {"AWS_MAX_ATTEMPTS": "x"}),
        (("report", f"{finished}?X-Amz-Signature=canary"), 2, [], {}),
        (("run", "m.json", "--output", "s3://AKIA:canary@results/run"), 2, [], {}),
        ((*run, "--set", "data.root=s3://AKIA:canary@results/run"), 2, [], {}),
        ((*run, "--set", "data.root=s3://data/x?X-Amz-Signature=canary"), 2, [], {}),
    ]
    stderr_chars = 0
    for arguments, code, stages, variables in commands:
        options: dict[str, Any] = {"stages": stages} if stages else {}
        done = job(*arguments, cwd=folder, variables={**CANARIES, **variables}, **options)
        assert done.returncode == code, done.stderr
        assert "anary" not in done.stdout + done.stderr, arguments
        assert "CANARY" not in done.stdout + done.stderr, arguments
        stderr_chars += len(done.stderr)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("job-traceback") for path in paths)
    contents = [path.read_bytes() for path in paths]
    contents += [s3_server.store.read(each.uri) for each in s3_server.store.list(finished)]
    assert len(contents) > 40
    assert stderr_chars > 1000
    assert not any(b"anary" in content or b"CANARY" in content for content in contents)
