"""Runs a saved model on fixed images, first timed, then with oneDNN's log on standard output.

python -m job.profile.record_main PREFIX MODE C,H,W BATCH_SIZE THREADS TIMED LOGGED PARENT_PID

After each call it prints a line that says how long the call took, such as ``timed_call_ms=8.25``;
lines of oneDNN's log that stand before a ``logged_call_ms`` are that call's.
"""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from job.benchmark.cpu_pinning import pinned
from job.benchmark.samples import BenchmarkSetting
from job.process.parent_death import die_with_parent

if TYPE_CHECKING:
    from job.engine.inference.predictor import Predictor

# The first calls reorder weights and find their memory.
WARMUP_CALLS = 3


def main(
    prefix: str,
    mode: str,
    shape: str,
    batch_size: str,
    threads: str,
    timed: str,
    logged: str,
    parent: str,
) -> None:
    """Load the model and call it; ends with its parent."""
    die_with_parent(int(parent))
    channels, height, width = map(int, shape.split(","))
    setting = BenchmarkSetting(int(batch_size), int(threads), (channels, height, width))
    os.sched_setaffinity(0, pinned(setting))
    import numpy as np

    from job.engine.inference.predictor import Predictor, configuration
    from job.engine.inference.runtime import set_onednn_log
    from job.profile.onednn_log import LOGGED, TIMED

    predictor = Predictor(configuration(Path(prefix), mode, threads=setting.threads))
    size = (setting.batch_size, *setting.input_shape)
    predictor.set_images(np.random.default_rng(0).standard_normal(size).astype("float32"))
    set_onednn_log(on=False)
    for _ in range(WARMUP_CALLS):
        predictor.run()
    call(predictor, int(timed), TIMED)
    set_onednn_log(on=True)
    call(predictor, int(logged), LOGGED)


def call(predictor: "Predictor", times: int, label: str) -> None:
    """Run the model and print how long each call took, in milliseconds.

    The time is that of the calling thread, which also waits in it for the model's other threads:
    a neighbour that takes the core away for a while is no part of the call.
    """
    for _ in range(times):
        started = time.thread_time_ns()
        predictor.run()
        # At once, because oneDNN writes past Python's buffer.
        print(f"{label}={(time.thread_time_ns() - started) / 1e6}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
