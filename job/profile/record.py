"""Runs a model once in a process of its own and reads the primitives that oneDNN executed."""

import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from job.errors import QuantizationError
from job.isa import isa_environment
from job.profile.onednn_log import Primitive, calls_in, typical


@dataclass(frozen=True)
class Recording:
    """Calls of a model; every figure is the median over them.

    Attributes:
        milliseconds: of a call without oneDNN's log, which costs time itself; NaN if none was
            to be timed.
        primitives: what a call executes, in order.
    """

    milliseconds: float
    primitives: list[Primitive]


def record(
    prefix: Path,
    mode: str,
    input_shape: tuple[int, int, int],
    *,
    timed: int,
    logged: int,
    isa_cap: str = "all",
    batch_size: int = 1,
    threads: int = 1,
) -> Recording:
    """Run a saved model in a fresh process and read what it executed.

    Args:
        prefix: of the saved model.
        mode: as for ``job.engine.inference.predictor.configuration``.
        input_shape: (channels, height, width).
        timed: calls without oneDNN's log, after a few that are not counted.
        logged: calls with it, after those.
        isa_cap: the highest instruction set that oneDNN may use, or ``all``.
        batch_size: images of a call.
        threads: of the model.

    Raises:
        QuantizationError: the model does not run.
    """
    shape = ",".join(map(str, input_shape))
    numbers = (batch_size, threads, timed, logged, os.getpid())
    # -P: a folder called job in the current directory is not this package.
    command = [sys.executable, "-P", "-m", "job.profile.record_main", str(prefix), mode, shape]
    # Read when the libraries load, so it must be a fresh process.
    fixed = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [*command, *map(str, numbers)],
        env={**os.environ, **isa_environment(isa_cap), **fixed},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise QuantizationError(f"{prefix} does not run in Paddle Inference ({mode}):\n{tail}")
    milliseconds, calls = calls_in(done.stdout.splitlines())
    return Recording(median(milliseconds) if milliseconds else math.nan, typical(calls))


def trace(
    prefix: Path,
    mode: str,
    input_shape: tuple[int, int, int],
    runs: int = 4,
    isa_cap: str = "all",
    batch_size: int = 1,
    threads: int = 1,
) -> list[Primitive]:
    """Return the primitives that a call of a saved model executes; see ``record``."""
    recording = record(
        prefix,
        mode,
        input_shape,
        timed=0,
        logged=runs,
        isa_cap=isa_cap,
        batch_size=batch_size,
        threads=threads,
    )
    return recording.primitives
