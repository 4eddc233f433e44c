"""Measures the overhead of Python: compares `job predict` with the native tester by batch size.

taskset -c 0 python job/native/overhead.py TESTER MODEL [--batch-sizes 1 16 50] [--rounds 10]

Each round runs both testers once in new processes. The order alternates. Both use the same random
images, because the speed does not depend on the values.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from job import stats
from job.benchmark.rounds import in_turn
from job.data import packed
from job.engine.inference.saved_model import read_saved_model
from job.predict import runner

ROUND_SECONDS = 1.0
WARMUP_CALLS = 5
PYTHON = (sys.executable, "-m", "job", "predict", "--json")


def write_images(path: Path, model: Path, count: int) -> None:
    """Write a packed file of random images for a model with a fixed input size."""
    shape = read_saved_model(runner.find_model(model)).input_shape
    images = np.random.default_rng(0).random((count, *shape), np.float32)
    batch = (images, np.zeros(count, np.int64))
    packed.write(path, [batch], shape=shape, transform="none: random numbers, for speed")


def speed(command: Sequence[str], *arguments: str) -> dict[str, Any]:
    """Run a tester and return the ``speed`` object of its output."""
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)["speed"]
    return result


def compare(native: Path, model: Path, data: Path, batch_size: int, rounds: int) -> dict[str, Any]:
    """Return the p50 latency of both testers in ms, and the paired ratio of images/s."""
    fixed: tuple[str, ...] = ("--infer-model", str(model), "--infer-data", str(data))
    fixed += ("--batch-size", str(batch_size))
    commands = {"python": PYTHON, "native": (str(native.absolute()),)}
    pilot = speed(commands["native"], *fixed, "--warmup-size", str(WARMUP_CALLS))
    calls = max(1, math.ceil(1000 * ROUND_SECONDS / (pilot["latency_ms"]["p50"] * pilot["calls"])))
    fixed += ("--warmup-size", str(WARMUP_CALLS), "--repeat", str(calls))
    speeds: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in in_turn(list(commands), number):
            speeds[name].append(speed(commands[name], *fixed))
    rates = {name: [each["images_per_second"] for each in runs] for name, runs in speeds.items()}
    p50 = {
        name: statistics.median(each["latency_ms"]["p50"] for each in runs)
        for name, runs in speeds.items()
    }
    ratio = stats.paired_ratio(rates["python"], rates["native"])
    return {"p50": p50, "ratio": ratio.value, "interval": ratio.interval}


def main() -> None:
    """Print a row for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tester", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 50])
    parser.add_argument("--rounds", type=int, default=10, choices=range(2, 1000), metavar="N")
    given = parser.parse_args()
    print("batch  Python p50 ms  native p50 ms  Python adds µs  native/Python  95%")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.bin"
        write_images(data, given.model, max(given.batch_sizes))
        for batch_size in given.batch_sizes:
            show(batch_size, compare(given.tester, given.model, data, batch_size, given.rounds))


def show(batch_size: int, row: dict[str, Any]) -> None:
    """Print a row."""
    python, native = row["p50"]["python"], row["p50"]["native"]
    low, high = row["interval"]
    print(
        f"{batch_size:5}  {python:13.3f}  {native:13.3f}  {1000 * (python - native):15.0f}  "
        f"{row['ratio']:13.3f}  {low:.3f}-{high:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
