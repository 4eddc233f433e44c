"""Runs a model in a child process and reads which primitives oneDNN executed."""

import math
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from job.errors import QuantizationError
from job.isa import isa_environment
from job.process.environment import environment
from job.process.json_channel import ChildProcess, describe_exit
from job.profile.onednn_log import Primitive, calls_in, typical

# Mode of a model for the OpenVINO engine in Paddle.
PADDLE_OPENVINO = "paddle_openvino"


@dataclass(frozen=True)
class Recording:
    """Several calls of a model, reduced to medians.

    Attributes:
        milliseconds: median duration of a call without oneDNN's log, which takes time itself; NaN
            if no call was timed.
        primitives: the primitives that a call executes, in order, each with its median time.
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
    """Run a saved model in a child process and read which primitives it executed.

    Args:
        prefix: path of the saved model without suffix.
        mode: as for ``job.engine.inference.predictor.configuration``; ``paddle_openvino`` for the
            OpenVINO engine in Paddle, whose calls are always logged.
        input_shape: (channels, height, width).
        timed: calls without oneDNN's log, after a few warm-up calls.
        logged: calls with oneDNN's log, after the timed ones.
        isa_cap: the highest instruction set that oneDNN may use, or ``all``.
        batch_size: images of a call.
        threads: threads of the model.

    Raises:
        QuantizationError: the child process failed.
    """
    request = {
        "prefix": str(prefix),
        "mode": mode,
        "shape": input_shape,
        "batch_size": batch_size,
        "threads": threads,
        "timed": timed,
        "logged": logged,
    }
    # The engine has its own oneDNN, which reads this variable when it is loaded.
    verbose = {"ONEDNN_VERBOSE": "1"} if mode == PADDLE_OPENVINO else {}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        child = ChildProcess(
            "job.profile.record_main",
            request,
            environment=environment(threads) | isa_environment(isa_cap) | verbose,
            log=log,
        )
        with closing(child):
            child.receive()
            exit_code = child.wait()
        log.seek(0)
        lines = log.read().splitlines()
    if exit_code != 0:
        tail = "\n".join(lines[-5:])
        raise QuantizationError(
            f"the process that runs {prefix} in Paddle Inference ({mode}) "
            f"{describe_exit(exit_code)}:\n{tail}"
        )
    milliseconds, calls = calls_in(lines)
    return Recording(median(milliseconds) if milliseconds else math.nan, typical(calls))


def trace(
    prefix: Path, mode: str, input_shape: tuple[int, int, int], isa_cap: str = "all"
) -> list[Primitive]:
    """Return the primitives that a call of a saved model executes; see :func:`record`."""
    return record(prefix, mode, input_shape, timed=0, logged=4, isa_cap=isa_cap).primitives
