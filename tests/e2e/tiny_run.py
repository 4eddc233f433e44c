"""A run small enough for tests, and the command line as a user calls it."""

import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import job_server
import numpy as np
from PIL import Image

from job.host import read_host

LIMIT_S = 280
# Without it, a machine below AVX512_VNNI refuses every run; all else is the same there.
SLOW = () if read_host().has_vnni else ("--allow-slow-isa",)
STAGES = ("prepare", "baseline", "calibrate", "qat", "convert", "int8", "accuracy", "benchmark")
FOLDERS = ("data", "fp32", "calibrated", "qat", "qat_fake", "int8", "accuracy", "benchmark")

# 898 training images: an epoch has 14 steps, so the baseline passes into its second.
MANIFEST: Mapping[str, Any] = {
    "version": 1,
    "name": "tiny",
    "model": {"name": "convnet", "classes": 10, "input_shape": [1, 8, 8], "width": 0.5},
    "data": {
        "format": "digits",
        "mean": [0.5],
        "std": [0.5],
        "augment": {"crop": "pad", "padding": 1, "flip": False},
        "workers": 1,
    },
    "baseline": {
        "train": {
            "max_iters": 20,
            "batch_size": 64,
            "base_lr": 0.05,
            "evaluations_per_epoch": 2,
            "checkpoint_seconds": 0.001,
        }
    },
    "train": {
        "max_iters": 6,
        "batch_size": 64,
        "evaluations_per_epoch": 5,
        "checkpoint_seconds": 0.001,
    },
    "benchmark": {
        "batch_sizes": [1],
        "min_seconds": 0.2,
        "rounds": 2,
        "warmup_batches": 2,
        # Each other engine takes some seconds per run.
        "engines": ["paddle"],
    },
    "output": "out",
}


@dataclass(frozen=True)
class Done:
    """A command that ended; ``cpu_seconds`` are its own and those of all its children."""

    code: int
    out: str
    err: str
    cpu_seconds: float

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard error of ``--log-format json``; fails when a line is anything else."""
        return [json.loads(line) for line in self.err.splitlines()]

    def of(self, event: str) -> list[str]:
        """The stages of one kind of event."""
        return [each["stage"] for each in self.events if each["event"] == event]

    def reason(self, stage: str) -> str:
        """Why a stage ran or was reused."""
        events = ("stage_started", "stage_reused")
        return next(
            each["reason"]
            for each in self.events
            if each["event"] in events and each["stage"] == stage
        )

    @property
    def error(self) -> dict[str, Any]:
        """The error that ended the command: kind, exit_code, text and hint."""
        (error,) = [each for each in self.events if each["event"] == "error"]
        return error

    @property
    def worked(self) -> bool:
        """Whether anything ran; of ``--log-format json``."""
        return bool(json.loads(self.out.splitlines()[-1])["worked"])


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: holds ``m.json`` and ``out/``; the current directory of the command.
        done: how the command ended.
    """

    folder: Path
    done: Done

    @property
    def output(self) -> Path:
        """The output folder."""
        return self.folder / "out"


def changed(document: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    """A copy with parts replaced; of an object only the keys that are given."""
    copy = json.loads(json.dumps(document))
    for name, value in parts.items():
        if isinstance(value, dict) and isinstance(copy.get(name), dict):
            copy[name] = changed(copy[name], **value)
        else:
            copy[name] = value
    return copy


def write_manifest(folder: Path, **parts: Any) -> Path:
    """Write the tiny manifest, changed, to ``folder/m.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "m.json"
    path.write_text(json.dumps(changed(MANIFEST, **parts)))
    return path


def job(
    *arguments: str | Path,
    cwd: Path,
    stdin: str = "",
    expect: int | None = 0,
    command: Sequence[str] = ("-m", "job"),
    environment: Mapping[str, str] | None = None,
    executed: bool = False,
) -> Done:
    """Run ``job`` to its end.

    Args:
        arguments: its arguments.
        cwd: the current directory.
        stdin: its standard input.
        expect: the exit code that it must have; None for any.
        command: what stands before the arguments, after the interpreter.
        environment: variables to set besides.
        executed: start an interpreter for each process, as in a user's run, instead of forking it.
            Another ``command`` is always executed.
    """
    usual = tuple(command) == ("-m", "job")
    words = [*command, *map(str, arguments), *(_slow(arguments) if usual else ())]
    variables = os.environ | {"COLUMNS": "200"} | dict(environment or {})
    run = _execute if executed or not usual else _fork
    done = run([sys.executable, *words], cwd, variables, stdin)
    assert "Traceback" not in done.out + done.err, done.err
    if expect is not None:
        assert done.code == expect, f"exit {done.code}\n{done.out}\n{done.err}"
    return done


def _execute(words: Sequence[str], cwd: Path, variables: Mapping[str, str], stdin: str) -> Done:
    before = job_server.cpu_seconds()
    done = subprocess.run(
        words, cwd=cwd, env=variables, input=stdin, capture_output=True, text=True, timeout=LIMIT_S
    )
    used = job_server.cpu_seconds() - before
    return Done(done.returncode, done.stdout, done.stderr, used)


def _fork(words: Sequence[str], cwd: Path, variables: Mapping[str, str], stdin: str) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        given, out, err = (Path(folder) / name for name in ("stdin", "stdout", "stderr"))
        given.write_text(stdin)
        code, used = job_server.server().run(
            words, cwd=cwd, variables=variables, streams=(given, out, err), limit_s=LIMIT_S
        )
        return Done(code, out.read_text(), err.read_text(), used)


def _slow(arguments: Sequence[str | Path]) -> Sequence[str]:
    return SLOW if arguments[:1] == ("run",) else ()


def run_json(folder: Path, *arguments: str | Path, expect: int | None = 0) -> Done:
    """Run the manifest in a folder with ``--log-format json``."""
    return job("run", "m.json", "--log-format", "json", *arguments, cwd=folder, expect=expect)


def resumed_step(stage: str, stderr: str) -> int:
    """The step after which a stage resumed, by its first message in the log."""
    steps = re.findall(rf"{stage}: \D*after step (\d+)", stderr)
    assert steps, stderr
    return int(steps[0])


def start(*arguments: str | Path, cwd: Path, err: Path) -> "subprocess.Popen[bytes]":
    """Start ``job`` in a session of its own, its standard error in a file."""
    with err.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "job", *map(str, arguments), *_slow(arguments)],
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )


def wait_for_workers(output: Path) -> None:
    """Wait until no process of a killed run is left: a stage's process inherits the run's lock."""
    with (output / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def wait_until(
    happened: Callable[[], bool], process: "subprocess.Popen[bytes]", limit_s: float = LIMIT_S
) -> None:
    """Wait for something to happen while a process runs."""
    deadline = time.monotonic() + limit_s
    while not happened():
        assert process.poll() is None, "the run ended before it happened"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def report_of(output: Path) -> dict[str, Any]:
    """A run's report.json."""
    found: dict[str, Any] = json.loads((output / "report.json").read_bytes())
    return found


def record_of(output: Path, output_dir: str) -> dict[str, Any]:
    """What a stage recorded."""
    found: dict[str, Any] = json.loads((output / output_dir / "stage.json").read_bytes())["record"]
    return found


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def same_arrays(one: Path, other: Path) -> bool:
    """Whether two .npz files hold the same, bit for bit."""
    first, second = arrays(one), arrays(other)
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )


def draw_images(folder: Path, per_class: int, classes: int = 3, suffix: str = "png") -> list[str]:
    """Write images whose brightness tells their class, in class folders; returns their names."""
    random = np.random.default_rng(len(str(folder.name)))
    names = []
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(per_class):
            pixels = random.integers(0, 60, (12, 10, 3)) + 80 * label
            name = f"class{label}/{number:03d}.{suffix}"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            names.append(name)
    return names
