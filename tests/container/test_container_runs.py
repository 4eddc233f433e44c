"""Runs in the image: read-only, without network or capabilities, with 2 CPUs and 4 GiB."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from containers import ODD_USER, ROOT, USER, Ended, give, run, run_and_kill
from tiny_run import write_manifest

pytestmark = [pytest.mark.container, pytest.mark.timeout(400)]

# Bit for bit the same wherever they are made, from the same data by the same number of threads; a
# .pdmodel also holds where Python's files lie.
SAME = ("fp32/model.pdiparams", "qat_fake/model.pdiparams", "int8/model.pdiparams")


def report_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "report.json").read_bytes())
    return found


def digests(output: Path) -> dict[str, str]:
    rows = report_of(output)["artifacts"]
    return {row["path"]: row["sha256"] for row in rows if row["path"] in SAME}


@dataclass(frozen=True)
class Interrupted:
    """The digits manifest, stopped half-way and started again."""

    stopped: Ended
    again: Ended
    output: Path


@pytest.fixture(scope="module")
def digits(needs_vnni: None, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    folder = tmp_path_factory.mktemp("digits") / "work"
    shutil.copytree(ROOT / "manifests", folder / "manifests")
    give(folder, USER)
    # A short benchmark: no test reads its times.
    arguments = ("run", "manifests/digits.json", "--set", "benchmark.min_seconds=0.2")
    stopped = run_and_kill(
        *arguments, volume=folder, signal="TERM", when=lambda printed: "qat: step" in printed
    )
    return Interrupted(stopped, run(*arguments, volume=folder), folder / "runs/digits")


def test_stops_when_it_is_told_to(digits: Interrupted) -> None:
    assert digits.stopped.code == 143, digits.stopped.err
    assert re.search("^error: .*SIGTERM.*qat", digits.stopped.err, re.MULTILINE)


def test_goes_on_where_it_stopped(digits: Interrupted) -> None:
    again = digits.again
    assert again.code == 0, again.err
    assert "baseline: reused" in again.err
    assert re.search(r"qat: .*after step \d+", again.err)
    assert report_of(digits.output)["status"] == "passed"


def test_progress_is_plain_lines(digits: Interrupted) -> None:
    assert not {"\r", "\x1b"} & set(digits.stopped.err + digits.again.err)


def test_report_tells_allocator_and_limits(digits: Interrupted) -> None:
    host = report_of(digits.output)["host"]
    assert (host["allocator"], host["quota_cores"]) == ("jemalloc", 2)
    assert host["memory_bytes"] == 4 << 30


def test_models_are_those_of_a_run_outside_in_one_go(digits: Interrupted) -> None:
    here = ROOT / "runs/digits"
    if not (here / "report.json").exists():
        pytest.skip("there is no run of `make run` to compare with")
    assert report_of(here)["accuracy"] == report_of(digits.output)["accuracy"]
    assert digests(here) == digests(digits.output)


def test_any_user_with_a_writable_volume_alone(needs_vnni: None, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    write_manifest(folder)
    give(folder, ODD_USER)
    inside = ("--env", "HOME=/work/home", "--env", "TMPDIR=/work")
    done = run("run", "m.json", volume=folder, user=ODD_USER, tmp="ro", options=inside)
    assert done.code == 0, done.err
    assert report_of(folder / "out")["status"] == "passed"


@pytest.mark.parametrize(
    ("change", "code", "name"),
    [
        ({"train": {"epoch": 3}}, 2, "/train/epoch: "),
        ({"model": {"weights": "none.pdparams"}}, 4, "/work/none.pdparams"),
    ],
)
def test_exit_codes_and_the_last_word(
    tmp_path: Path, change: dict[str, Any], code: int, name: str
) -> None:
    folder, log = tmp_path / "work", tmp_path / "termination-log"
    write_manifest(folder, **change)
    give(folder, USER)
    log.touch()
    log.chmod(0o666)
    mount = ("--volume", f"{log}:/dev/termination-log")
    done = run("run", "m.json", "--allow-slow-isa", volume=folder, options=mount)
    assert done.code == code, done.err
    assert log.read_text().startswith(f"exit {code}: ")
    assert name in log.read_text()


def test_a_volume_that_the_user_may_not_write_to(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    write_manifest(folder)
    folder.chmod(0o755)
    done = run("run", "m.json", "--allow-slow-isa", volume=folder, user=ODD_USER)
    assert done.code == 1
    assert re.search("^error: .*/work/out: permission denied", done.err, re.MULTILINE)
