"""SIGKILL before each single change that a run makes to its output, and the same run again.

Fake stages run in forked processes. ``tests/e2e/test_crashes.py`` kills a real job once in each
stage, and ``tests/unit/storage/s3/test_crashes.py`` a run after each request to S3.
"""

import json
import mmap
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import fake_stages
import pytest
from fake_stages import go, make_manifest, stage
from forked import in_a_process
from tiers import sampled

from job.storage.local import LocalOutput

CHAIN = (stage("first"), stage("counting"))
STEPS = 4
# Audit events of Python functions that change a folder, besides opening a file for writing.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Files that hold times, and files that only some runs leave.
TIMES, SOMETIMES = ("stage.json", "report.json"), (".digests.json", ".lock")


class Killer:
    """Counts changes below a folder in this process and its forks; kills the run at one of them.

    Args:
        root: the folder.
        last: the number of the change, from 1, that does not happen; 0 for none.
    """

    def __init__(self, root: Path, last: int) -> None:
        self.root, self.last, self.run = str(root), last, os.getpid()
        self.count = mmap.mmap(-1, 4)

    @property
    def counted(self) -> int:
        """How many changes there were."""
        return int.from_bytes(self.count[:4], sys.byteorder)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        """Take part as an audit hook of Python."""
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITES:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root):
            number = self.counted + 1
            self.count[:4] = number.to_bytes(4, sys.byteorder)
            if number == self.last:
                os.kill(self.run, signal.SIGKILL)
                # In a stage's process, which the kernel kills when its parent is dead.
                signal.pause()


def changes(base: Path, last: int = 0) -> int | None:
    """Run the chain; returns how many changes it made, or None if it was killed at the last one."""
    counted = base / "counted"

    def action() -> int:
        killer = Killer(base / "out", last)
        sys.addaudithook(killer.hear)
        go(make_manifest(base), base / "out", CHAIN)
        counted.write_text(str(killer.counted))
        return 0

    code = in_a_process(action)
    assert code in (0, -signal.SIGKILL)
    return int(counted.read_text()) if code == 0 else None


def content(output: Path) -> dict[str, bytes]:
    """The content of every file; empty where it holds times."""
    return {
        str(path.relative_to(output)): b"" if path.name in TIMES else path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and path.name not in SOMETIMES
    }


def check_published(output: Path) -> None:
    """What is published is whole."""
    folder = LocalOutput(output)
    for each in CHAIN:
        published = folder.published(each.output_dir)
        assert published is None or folder.damage(published) is None
    report = output / "report.json"
    assert not report.exists() or json.loads(report.read_bytes())["status"] == "passed"


def test_killed_before_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]
) -> None:
    monkeypatch.setattr(fake_stages, "STEPS", STEPS)
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0")
    whole = tmp_path / "whole"
    whole.mkdir()
    total = changes(whole)
    assert total is not None
    expected, killed = content(whole / "out"), 0
    # Every third change; a stage makes the same changes several times.
    points = sampled(range(1, total + 1, 3))
    for last in points:
        base = tmp_path / f"before-{last}"
        base.mkdir()
        killed += changes(base, last) is None
        check_published(base / "out")
        assert changes(base) is not None
        assert content(base / "out") == expected, f"killed before change {last} of {total}"
    # The order of a stage's process and its parent may differ by a change or two.
    assert killed >= len(points) - 2
    tell(f"killed before {killed} of {total} changes")
