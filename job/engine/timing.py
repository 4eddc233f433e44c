"""A process that times one saved model, a round at a time, on the benchmark's command.

python -m job.engine.timing PREFIX MODE C,H,W BATCH_SIZE THREADS

Reads one JSON object a line from standard input, {"seconds": s, "batches": n}, and answers each
with {"milliseconds": [...], "peak_rss_bytes": b} after running for at least s seconds and n
batches. The benchmark sets thread counts and cores before this process starts.
"""

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TextIO

import numpy as np

from job.engine.predictor import Predictor, configuration


def time_round(predictor: Predictor, seconds: float, batches: int) -> list[float]:
    """Latency of each batch, in milliseconds."""
    latencies = []
    end = time.perf_counter() + seconds
    while len(latencies) < batches or time.perf_counter() < end:
        started = time.perf_counter_ns()
        predictor.run()
        latencies.append((time.perf_counter_ns() - started) / 1e6)
    return latencies


def serve(predictor: Predictor, commands: TextIO, answers: TextIO) -> None:
    """Answer commands until the input ends."""
    # A collection in the middle of a round would be counted as inference.
    gc.disable()
    for line in commands:
        command = json.loads(line)
        latencies = time_round(predictor, command["seconds"], command["batches"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer = {"milliseconds": latencies, "peak_rss_bytes": peak}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main(prefix: str, mode: str, shape: str, batch_size: str, threads: str) -> None:
    """Load the model, say so, and serve."""
    # Paddle and oneDNN print to standard output; the answers must stay apart.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    predictor = Predictor(configuration(Path(prefix), mode, threads=int(threads)))
    generator = np.random.default_rng(0)
    size = (int(batch_size), *map(int, shape.split(",")))
    predictor.set_images(generator.standard_normal(size).astype("float32"))
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    serve(predictor, sys.stdin, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
