"""The comparison as text, as JSON and as a page, through the command line."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from fake_cli import job
from finished_runs import predicted, write_run
from html_page import ATTACK, Page
from moto_server import S3Server
from sample_report import sample_report

from job.errors import GateFailed
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
