"""The comparison as text, as JSON and as a page, through the command line."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from fake_cli import job
from finished_runs import LABELS, predicted, write_run
from html_page import ATTACK, Page
from moto_server import S3Server
from sample_report import sample_report

from job.compare.results import OTHER_IMAGES
from job.errors import DataError, GateFailed, UsageError
from job.storage.s3 import index
from job.storage.s3.fetch_run import read_file
from job.storage.s3.index import Index, IndexEntry
from job.uri import S3Uri


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs ``a`` and ``b``; INT8 of b is worse."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "a")
    report = sample_report()
    report["name"] = ATTACK[:60]
    report["accuracy"]["int8"]["top1"] = 84.12
    write_run(folder / "b", report, int8=predicted(4206))
    return folder


def test_text_has_the_regression_first(runs: Path) -> None:
    done = job("compare", "a", "b", cwd=runs)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if "  " in line.strip()]
    first = next(line for line in rows if "top-1" in line)
    assert first.split()[:2] == ["INT8", "top-1"]
    assert "WORSE" in first
    assert done.stdout.count("WORSE") == 1
    assert "only A correct for 50, only B for 0; p < 0.001" in done.stdout


def test_it_fits_80_columns(runs: Path) -> None:
    done = job("compare", "a", "b", cwd=runs, variables={"COLUMNS": "80"})
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert any("WORSE" in line and "INT8 top-1" in line for line in done.stdout.splitlines())


def test_exit_code_of_a_regression(runs: Path) -> None:
    worse = job("compare", "a", "b", "--fail-on-worse", cwd=runs)
    assert worse.returncode == GateFailed.exit_code
    assert "INT8 top-1" in worse.stderr
    assert job("compare", "b", "a", "--fail-on-worse", cwd=runs).returncode == 0


def test_json(runs: Path) -> None:
    found = json.loads(job("compare", "a", "b", "--json", cwd=runs).stdout)
    assert (found["version"], found["worse"]) == (1, 1)
    first = found["results"][0]
    assert (first["name"], first["verdict"]) == ("INT8 top-1", "worse")
    assert first["change"] < 0
    assert found["a"]["output"] == "a"


def test_results_without_a_verdict_are_no_success(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "a")
    report = json.loads((runs / "a/report.json").read_text())
    report["host"]["cpu_model"] = "another"
    write_run(tmp_path / "b", report, labels=LABELS[::-1])
    found = json.loads(job("compare", "a", "b", "--json", cwd=tmp_path).stdout)
    verdicts = [each["verdict"] for each in found["results"]]
    assert found["judged"] == len(verdicts) - verdicts.count("not judged") > 0
    first, *rest = job("compare", "a", "b", cwd=tmp_path).stdout.splitlines()
    # Equal reasons are printed once.
    assert sum(OTHER_IMAGES in line for line in rest) == 1
    assert f"{found['judged']} judged, {verdicts.count('not judged')} not judged" in first


def test_an_output_without_a_report_is_described(runs: Path, tmp_path: Path) -> None:
    """Of a run that failed, a run that was stopped, a part of a run, and no folder."""
    (tmp_path / "failed/logs").mkdir(parents=True)
    failure = {"message": "stage int8 failed: reason\n  | line", "exit_code": 1}
    (tmp_path / "failed/failure.json").write_text(json.dumps(failure))
    (tmp_path / "stopped/logs").mkdir(parents=True)
    cases = {
        tmp_path / "failed": "stage int8 failed: reason",
        tmp_path / "stopped": "not finished",
        runs / "a/accuracy": f"Give {runs / 'a'}",
        tmp_path / "none": "does not exist",
    }
    for folder, named in cases.items():
        done = job("compare", "a", str(folder), cwd=runs)
        assert done.returncode == UsageError.exit_code
        assert named in done.stderr
        assert "  | line" not in done.stderr


def test_a_report_of_another_version_is_named(runs: Path, tmp_path: Path) -> None:
    report = json.loads((runs / "a/report.json").read_text())
    del report["audit"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    done = job("compare", "a", str(tmp_path), cwd=runs)
    assert done.returncode == DataError.exit_code
    assert "'audit'" in done.stderr
    assert "--from report" in done.stderr


def test_the_page_escapes_names(runs: Path) -> None:
    done = job("compare", "a", "b", "--html", "page.html", cwd=runs)
    assert done.returncode == 0, done.stderr
    text = (runs / "page.html").read_text()
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert ATTACK[:60] in "".join(page.texts)
    assert "INT8 top-1" in page.texts
    assert '<td class="failed">WORSE</td>' in text


def upload(folder: Path, server: S3Server, output: S3Uri) -> None:
    """Write the files of a run to S3 as a finished run."""
    (folder / ".report.json").write_text("1")
    entries = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        entry = IndexEntry(f"runs/one/1/{name}", len(content), hashlib.sha256(content).hexdigest())
        server.store.put(output / entry.object, content)
        entries[name] = entry
    index.write(server.store, output, Index(1, 1, ("one",), entries))


def test_runs_in_s3(runs: Path, s3_server: S3Server, bucket: S3Uri, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "a")
    upload(tmp_path / "a", s3_server, bucket / "a")
    done = job("compare", str(bucket / "a"), str(runs / "b"), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)["results"][0]
    assert (first["name"], first["verdict"]) == ("INT8 top-1", "worse")
    assert first["p_value"] < 0.001
    assert read_file(s3_server.store, bucket / "a", "none") is None
