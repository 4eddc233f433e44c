"""The process that times a saved model, then logs its primitives; ``record`` starts it.

The request contains ``prefix``, ``mode``, ``shape`` [channels, height, width], ``batch_size``,
``threads``, ``timed`` and ``logged`` (numbers of calls). After each call the process prints the
duration, such as ``timed_call_ms=8.25``. The lines of oneDNN's log before a ``logged_call_ms`` line
belong to that call.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.benchmark.cpu_pinning import pinned
from job.benchmark.samples import BenchmarkSetting
from job.process.json_channel import JsonChannel, run_child
from job.profile.record import PADDLE_OPENVINO

if TYPE_CHECKING:
    from job.engine.inference.predictor import Predictor

# The first calls reorder weights and allocate memory.
WARMUP_CALLS = 3


def main(request: Mapping[str, Any], channel: JsonChannel) -> None:  # noqa: ARG001
    """Load the model and call it."""
    channels, height, width = request["shape"]
    setting = BenchmarkSetting(request["batch_size"], request["threads"], (channels, height, width))
    os.sched_setaffinity(0, pinned(setting))
    import numpy as np

    from job.engine.inference.inference_only import import_inference_only

    import_inference_only()
    from job.engine.inference.runtime import set_onednn_log
    from job.profile.onednn_log import LOGGED, TIMED

    predictor = loaded(Path(request["prefix"]), request["mode"], setting.threads)
    size = (setting.batch_size, *setting.input_shape)
    predictor.set_images(np.random.default_rng(0).standard_normal(size).astype("float32"))
    set_onednn_log(on=False)
    for _ in range(WARMUP_CALLS):
        predictor.run()
    call(predictor, request["timed"], TIMED)
    set_onednn_log(on=True)
    call(predictor, request["logged"], LOGGED)


def loaded(prefix: Path, mode: str, threads: int) -> "Predictor":
    """Load a model; see ``record``."""
    if mode == PADDLE_OPENVINO:
        from job.engine.paddle_openvino.model import PaddleOpenVINOModel

        return PaddleOpenVINOModel(prefix, threads)
    from job.engine.inference.predictor import Predictor, configuration

    return Predictor(configuration(prefix, mode, threads=threads))


def call(predictor: "Predictor", times: int, label: str) -> None:
    """Run the model and print the duration of each call in milliseconds.

    The duration is the processor time of the calling thread. While the thread waits for the model's
    other threads, it spins. Time in which another process used the core is not included.
    """
    for _ in range(times):
        started = time.thread_time_ns()
        predictor.run()
        # Flushed now, because oneDNN's log does not pass through Python's buffer.
        print(f"{label}={(time.thread_time_ns() - started) / 1e6}", flush=True)


if __name__ == "__main__":
    run_child(main)
