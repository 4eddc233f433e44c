"""SIGKILL in each stage of a real job, each time followed by the same command.

One output is killed again and again until it is complete, and must then hold what an uninterrupted
run leaves, file by file. With fake stages, ``tests/unit/pipeline/test_crashes.py`` kills a run
before each change of its output, and ``tests/unit/storage/s3/test_crashes.py`` one after each
request to S3.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moto_server import S3Server
from tiny_run import FOLDERS, STAGES, Run, job, run_json, start, write_manifest
from watching import found_in, lines_of

from job.host import read_host
from job.storage.digests import hash_file
from job.storage.s3 import index
from job.storage.s3.fetch_run import fetch
from job.uri import S3Uri

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.timeout(900)]

LEAVES = dict(zip(STAGES, FOLDERS, strict=True))
# Measured, not made: other figures in every run.
MEASURED = ("benchmark",)
TIMES = ("images_per_second", "milliseconds")
LIMIT_S = 120
POLL_S = 0.003

Point = Callable[["Killing"], bool]


@dataclass
class Killing:
    """A job that is started and killed over and over.

    Attributes:
        folder: holds ``m.json``; the current directory of the command.
        output: the folder in which the run works.
        arguments: of ``job run m.json``, besides.
        killed: the names of the points at which it was killed.
    """

    folder: Path
    output: Path
    arguments: tuple[str, ...] = ()
    killed: list[str] = field(default_factory=list)

    def at(self, name: str, point: Point) -> None:
        """Start it and kill it when the point is reached; it must not end before."""
        err = self.folder / "err.txt"
        command = ("run", "m.json", "--log-format", "json", *self.arguments)
        process = start(*command, cwd=self.folder, err=err)
        deadline = time.monotonic() + LIMIT_S
        try:
            while not point(self):
                assert process.poll() is None, f"{name}: it ended before\n{err.read_text()}"
                assert time.monotonic() < deadline, f"{name}: not reached\n{err.read_text()}"
                time.sleep(POLL_S)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in err.read_text(), err.read_text()
        self.killed.append(name)

    def events(self) -> list[Mapping[str, object]]:
        """Its events so far."""
        return [json.loads(line) for line in lines_of(self.folder / "err.txt")]

    def finish(self) -> str:
        """Run it to its end and return what it said."""
        return job("run", "m.json", *self.arguments, cwd=self.folder).err


def said(event: str, stage: str) -> Point:
    return lambda run: any(
        each["event"] == event and each.get("stage") == stage for each in run.events()
    )


def later(point: Point, seconds: float) -> Point:
    """Some time after a point."""
    reached: list[float] = []

    def happened(run: Killing) -> bool:
        if not reached and point(run):
            reached.append(time.monotonic())
        return bool(reached) and time.monotonic() - reached[0] > seconds

    return happened


def working(stage: str) -> Point:
    """Once a stage has written anything."""

    def happened(run: Killing) -> bool:
        files = found_in(run.output / ".partial" / stage, "**/*")
        return any(path.name != ".key" and path.is_file() for path in files)

    return happened


def checkpoint(stage: str, step: int) -> Point:
    def happened(run: Killing) -> bool:
        files = found_in(run.output / ".partial" / stage / "checkpoints", "step-*.npz")
        return any(int(path.stem.split("-")[1]) >= step for path in files)

    return happened


def publishing(stage: str) -> Point:
    """Once a stage's result is described: it is renamed next."""
    return lambda run: (
        (run.output / ".partial" / stage / "stage.json").exists()
        or (run.output / LEAVES[stage] / "stage.json").exists()
    )


# One point in each stage, in the order in which a run reaches them.
POINTS: Mapping[str, tuple[str, Point]] = {
    "prepare": ("first file", working("prepare")),
    "baseline": ("step 10", checkpoint("baseline", 10)),
    "calibrate": ("progress", said("progress", "calibrate")),
    "qat": ("step 4", checkpoint("qat", 4)),
    "convert": ("imports", later(said("stage_started", "convert"), 0.5)),
    "int8": ("publishing", publishing("int8")),
    "accuracy": ("progress", said("progress", "accuracy")),
    "benchmark": ("progress", said("progress", "benchmark")),
    "report": ("first file", lambda run: (run.output / "report.json").exists()),
}
HAS_VNNI = read_host().has_vnni
# Where INT8 is inexact, the shared run ends before the stage int8.
BEFORE_INT8 = ("prepare", "baseline", "calibrate", "qat", "convert")


def check_like(finished: Path, output: Path, folders: Sequence[str] = FOLDERS) -> int:
    """Compare every file that does not depend on measured times; returns how many there were."""
    compared = 0
    for output_dir in folders:
        one, other = finished / output_dir, output / output_dir
        names = files_in(one)
        assert files_in(other) == names
        if output_dir in MEASURED:
            continue
        for name in sorted(names - {"stage.json"}):
            check_alike(one / name, other / name)
            compared += 1
    return compared


def files_in(folder: Path) -> set[str]:
    """Return the files in a folder, without deploy.json, which names the fastest settings."""
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return files - {"deploy.json"}


def check_alike(one: Path, other: Path) -> None:
    """Compare two files bit for bit, as far as two uninterrupted runs leave the same."""
    if one.suffix in (".json", ".jsonl"):
        assert lasting(one) == lasting(other), one.name
    elif one.suffix == ".npz":
        check_arrays(one, other)
    elif one.suffix == ".pdmodel":
        # Which of two ops without order between them comes first depends on a hash of addresses.
        assert sorted(one.read_bytes()) == sorted(other.read_bytes()), one
    else:
        assert hash_file(one) == hash_file(other), one


def lasting(path: Path) -> list[Any]:
    """What a file of JSON says, without measured times and the order that comes of them."""
    text = path.read_text()
    values = text.splitlines() if path.suffix == ".jsonl" else [text]
    return [_lasting(json.loads(value)) for value in values]


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(item) for name, item in value.items() if name not in TIMES}
    if isinstance(value, list):
        return sorted((_lasting(item) for item in value), key=json.dumps)
    return value


def check_arrays(one: Path, other: Path) -> None:
    with np.load(one) as first, np.load(other) as second:
        assert first.files == second.files
        for name in first.files:
            assert first[name].tobytes() == second[name].tobytes(), f"{one.name}: {name}"


def check_clean(output: Path) -> None:
    """Nothing is left over that a next run could take for something."""
    assert list((output / ".partial").iterdir()) == []
    assert [path for path in output.rglob("*") if path.suffix in (".tmp", ".part")] == []


def test_killed_in_every_stage(trained: Run, tmp_path: Path, tell: Callable[[str], None]) -> None:
    stages = tuple(POINTS) if HAS_VNNI else BEFORE_INT8
    until = () if HAS_VNNI else ("--until", BEFORE_INT8[-1])
    write_manifest(tmp_path)
    run = Killing(tmp_path, tmp_path / "out", until)
    began = time.monotonic()
    for stage in stages:
        name, point = POINTS[stage]
        run.at(f"{stage}: {name}", point)
    run.finish()
    compared = check_like(trained.output, run.output, FOLDERS[: len(stages)])
    check_clean(run.output)
    assert not run_json(tmp_path, *until).worked
    assert len(run.killed) == len(stages)
    tell(
        f"killed at {len(run.killed)} points in {time.monotonic() - began:.0f} s, "
        f"{compared} files like those of an uninterrupted run"
    )


def index_names(server: S3Server, output: S3Uri, path: str) -> Point:
    """Once an index that a reader finds names a file."""

    def happened(run: Killing) -> bool:
        found = index.newest(server.store, output)
        return found is not None and path in found.files

    return happened


def object_there(server: S3Server, output: S3Uri, part: str) -> Point:
    """Once some object is being made known, before the index names it or just after."""

    def happened(run: Killing) -> bool:
        return any(part in each.uri.key for each in server.store.list(output / "runs"))

    return happened


def test_killed_while_it_writes_to_s3(
    finished: Run, tmp_path: Path, s3_server: S3Server, bucket: S3Uri, tell: Callable[[str], None]
) -> None:
    """Every second time the disk is lost as well, and another machine goes on."""
    output = bucket / "run"
    write_manifest(tmp_path, storage={"scratch": str(tmp_path / "scratch")})
    run = Killing(tmp_path, tmp_path / "none", ("--output", str(output)))
    began = time.monotonic()
    points = [
        ("data: named", index_names(s3_server, output, "data/stage.json")),
        *(
            (f"{part}: uploading", object_there(s3_server, output, f"/{part}/"))
            for part in (".partial/baseline", "fp32", ".partial/qat", "int8")
        ),
        ("accuracy: named", index_names(s3_server, output, "accuracy/stage.json")),
        ("report: uploading", object_there(s3_server, output, "/report.json")),
    ]
    for number, (name, point) in enumerate(points):
        run.at(name, point)
        if number % 2:
            shutil.rmtree(tmp_path / "scratch")
    run.finish()
    fetch(s3_server.store, output, tmp_path / "fetched", print)
    compared = check_like(finished.output, tmp_path / "fetched")
    check_parts(finished, run, s3_server, output)
    named = {entry.object for entry in index.read(s3_server.store, output).entries}
    stored = [each.uri.key.removeprefix(output.below) for each in s3_server.store.list(output)]
    assert named == {key for key in stored if key.startswith("runs/")}
    tell(
        f"killed at {len(run.killed)} points in {time.monotonic() - began:.0f} s, "
        f"{compared} files like those of an uninterrupted run"
    )


def check_parts(finished: Run, run: Killing, s3_server: S3Server, output: S3Uri) -> None:
    """Score one part of the run's test split as another machine would, and join it there."""
    parts = ("--set", "accuracy.shards=2")
    elsewhere = {"JOB_SCRATCH": str(run.folder / "elsewhere")}
    score = ("score", "m.json", *parts, "--shard", "1", *run.arguments)
    done = job(*score, cwd=run.folder, environment=elsewhere)
    assert "Scored shard 1 " in done.out
    join = ("run", "m.json", *parts, "--from", "accuracy", "--until", "accuracy", *run.arguments)
    again = job(*join, cwd=run.folder)
    assert re.search(r"accuracy: .*1 of 2", again.err)
    entry = index.read(s3_server.store, output).files["accuracy/predictions.npz"]
    assert entry.sha256 == hash_file(finished.output / "accuracy/predictions.npz")
