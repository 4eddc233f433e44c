"""A process that times one saved model, a round at a time, on the benchmark's command.

python -m job.benchmark.timer_main PATH MODE C,H,W BATCH_SIZE THREADS CORES PARENT_PID

Imports its engine on any core, so that several processes can do that side by side. Everything else
happens on its own cores and on command: it reads one JSON object a line from standard input and
answers each with one:

* {"do": "load"}, the first one, answers {} when the model is loaded.
* {"do": "time", "seconds": s, "batches": n, "limit": l, "start_ns": t, "keep_busy": b} runs from
  the monotonic time t on, for at least s seconds and n batches but for no more than l seconds and
  one batch, and answers {"milliseconds": [...]}. Kept busy, it goes on, uncounted, until it is told
  something else: other instances may still be counting.
* {"do": "pause"} answers {}, when it has come to rest.
* {"do": "scores", "images": n} answers {"scores": [[...], ...]} of the first n images.

With each answer come ``peak_rss_bytes``, and of this process so far ``cpu_seconds`` and
``preemptions``, how often another process took its core away. The benchmark sets thread counts
and instruction set before this process starts.
"""

import gc
import json
import os
import resource
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from job.process.parent_death import die_with_parent


class Model(Protocol):
    """What is timed, whatever engine it runs in."""

    def set_images(self, images: Any) -> None:
        """Give the model its images, float32 [N, C, H, W]."""

    def run(self) -> None:
        """One forward pass over the images set before."""

    def scores(self, images: Any) -> Any:
        """Class scores, float32 [N, classes]."""


def opener(path: Path, mode: str, shape: list[int], threads: int) -> Callable[[], Model]:
    """Import a model's engine, and no other; returns what loads the model into it.

    Args:
        path: of the saved model without suffix, or for other engines than Paddle its folder.
        mode: ``native``, ``onednn``, ``int8``, ``openvino``, ``onnxruntime`` or ``nothing``.
        shape: [channels, height, width].
        threads: of the engine.
    """
    if mode == "openvino":
        from job.engine.openvino import convert as openvino

        return lambda: openvino.open_model(path, threads)
    if mode == "onnxruntime":
        from job.engine.onnxruntime import convert as onnxruntime

        return lambda: onnxruntime.open_model(path, threads)
    if mode == "nothing":
        from job.engine import noop_model

        return lambda: noop_model.open_model(shape, threads)
    from job.engine.inference.predictor import Predictor, configuration

    return lambda: Predictor(configuration(path, mode, threads=threads))


def pin(cores: Sequence[int]) -> None:
    """Keep this process, and the threads that imports have started, on some cores."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)


def time_round(model: Model, seconds: float, batches: int, limit: float) -> list[float]:
    """Latency of each call, in milliseconds; at least one."""
    latencies: list[float] = []
    began = time.perf_counter()
    while True:
        started = time.perf_counter_ns()
        model.run()
        latencies.append((time.perf_counter_ns() - started) / 1e6)
        elapsed = time.perf_counter() - began
        if elapsed >= limit or (elapsed >= seconds and len(latencies) >= batches):
            return latencies


def usage() -> dict[str, Any]:
    """What this process has used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "peak_rss_bytes": used.ru_maxrss * 1024,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "preemptions": used.ru_nivcsw,
    }


def serve(model: Model, images: Any, commands: TextIO, answers: TextIO) -> None:
    """Answer commands until the input ends."""

    def answer(**values: Any) -> None:
        answers.write(json.dumps({**values, **usage()}) + "\n")
        answers.flush()

    model.set_images(images)
    answer()
    # A collection in the middle of a round would be counted as inference.
    gc.disable()
    for line in commands:
        command = json.loads(line)
        if command["do"] == "time":
            # All instances start together, however long the news took to reach each.
            time.sleep(max(0.0, command["start_ns"] / 1e9 - time.monotonic()))
            limits = (command["seconds"], command["batches"], command["limit"])
            answer(milliseconds=time_round(model, *limits))
            while command["keep_busy"] and not select.select([commands], [], [], 0)[0]:
                model.run()
        elif command["do"] == "scores":
            answer(scores=model.scores(images)[: command["images"]].tolist())
        else:
            answer()


def main(
    path: str, mode: str, shape: str, batch_size: str, threads: str, cores: str, parent: str
) -> None:
    """Load the model when asked to, and serve; ends with its parent."""
    die_with_parent(int(parent))
    # Paddle and oneDNN print to standard output; the answers must stay apart.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import numpy as np

    size = [int(text) for text in shape.split(",")]
    load = opener(Path(path), mode, size, int(threads))
    pin([int(text) for text in cores.split(",")])
    if not sys.stdin.readline():
        return
    model = load()
    images = np.random.default_rng(0).standard_normal((int(batch_size), *size)).astype("float32")
    serve(model, images, sys.stdin, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
