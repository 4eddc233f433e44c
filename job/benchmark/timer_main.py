"""The process that times one saved model; :mod:`job.benchmark.timer` starts it.

The request contains ``path``, ``mode``, ``shape`` [channels, height, width], ``batch_size``,
``threads`` and ``cores``. The process imports its engine before it is pinned, because several
processes import at the same time. After the import it is pinned to the requested cores, and runs
commands. Each command is a JSON object and has one answer:

* {"do": "load"} is the first command. The answer {} means that the model is loaded.
* {"do": "time", "seconds": s, "batches": n, "limit": l, "start_ns": t, "keep_busy": b} times calls
  from the monotonic time t on, for at least s seconds and n batches, but no longer than l seconds
  (and at least one batch). The answer is {"milliseconds": [...]}. If b is true, the process makes
  untimed calls until the next command, because other instances may still be timed.
* {"do": "pause"} ends these calls. The answer is {}.
* {"do": "scores", "images": n}: the answer is {"scores": [[...], ...]} of the first n images.

Each answer also has ``peak_rss_bytes`` and, since the start of the process, ``cpu_seconds`` and
``preemptions`` (involuntary context switches). The environment variables for thread counts and
instruction set are set before this process starts.
"""

import gc
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from job.process.json_channel import JsonChannel, run_child
from job.process.memory import peak_rss_bytes

# Engines that are not part of Paddle.
OUTSIDE_PADDLE = ("openvino", "onnxruntime")


class Model(Protocol):
    """A loaded model of any engine."""

    def set_images(self, images: Any) -> None:
        """Set the model's input, float32 [N, C, H, W]."""

    def run(self) -> None:
        """Run one forward pass over the input."""

    def scores(self, images: Any) -> Any:
        """Return class scores, float32 [N, classes]."""


def opener(path: Path, mode: str, shape: Sequence[int], threads: int) -> Callable[[], Model]:
    """Import the engine of a mode, and no other; return a function that loads the model.

    Args:
        path: path of the saved model without suffix; for the other engines, its folder.
        mode: see :class:`job.benchmark.timer.Candidate`.
        shape: [channels, height, width].
        threads: threads of the engine.
    """
    if mode == "openvino":
        from job.engine.openvino import convert as openvino

        return lambda: openvino.open_model(path, threads)
    if mode == "paddle_openvino":
        from job.engine.paddle_openvino import model as paddle_openvino

        return lambda: paddle_openvino.open_model(path, threads)
    if mode == "fp32_paddle_openvino":
        from job.engine.paddle_openvino import model as paddle_openvino

        return lambda: paddle_openvino.PaddleOpenVINOModel(path, threads)
    if mode == "onnxruntime":
        from job.engine.onnxruntime import convert as onnxruntime

        return lambda: onnxruntime.open_model(path, threads)
    if mode == "nothing":
        from job.engine import noop_model

        return lambda: noop_model.open_model(shape, threads)
    from job.engine.inference.predictor import Predictor, configuration

    return lambda: Predictor(configuration(path, mode, threads=threads))


def pin(cores: Sequence[int]) -> None:
    """Pin this process to cores, with all threads that imports have started."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # The thread has just ended.
            os.sched_setaffinity(int(thread.name), cores)


def time_round(model: Model, seconds: float, batches: int, limit: float) -> list[float]:
    """Return the latency of each call in milliseconds; at least one call."""
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
    """Return the resources that this process has used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "peak_rss_bytes": peak_rss_bytes(),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "preemptions": used.ru_nivcsw,
    }


def serve(model: Model, images: Any, channel: JsonChannel) -> None:
    """Report that the model is loaded, then answer commands until the channel is closed."""
    model.set_images(images)
    channel.send(**usage())
    # A garbage collection during a round would be counted as inference.
    gc.disable()
    while command := channel.receive():
        answer: dict[str, Any] = {}
        if command["do"] == "time":
            # All instances start at the same time, whenever each has received the command.
            time.sleep(max(0.0, command["start_ns"] / 1e9 - time.monotonic()))
            limits = (command["seconds"], command["batches"], command["limit"])
            answer = {"milliseconds": time_round(model, *limits)}
        elif command["do"] == "scores":
            answer = {"scores": model.scores(images)[: command["images"]].tolist()}
        channel.send(**answer, **usage())
        while command.get("keep_busy") and not channel.has_input():
            model.run()


def main(request: Mapping[str, Any], channel: JsonChannel) -> None:
    """Load the model on the first command, then serve the others."""
    import numpy as np

    if request["mode"] not in OUTSIDE_PADDLE:
        from job.engine.inference.inference_only import import_inference_only

        import_inference_only()
    size = request["shape"]
    load = opener(Path(request["path"]), request["mode"], size, request["threads"])
    pin(request["cores"])
    if channel.receive() is None:
        return
    model = load()
    shape = (request["batch_size"], *size)
    serve(model, np.random.default_rng(0).standard_normal(shape).astype("float32"), channel)


if __name__ == "__main__":
    run_child(main)
