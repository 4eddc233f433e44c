"""Runs a saved model on one fixed image, for oneDNN's log.

python -m job.engine.run_once PREFIX MODE C,H,W RUNS
"""

import sys
from pathlib import Path

import numpy as np

from job.engine.predictor import Predictor, configuration


def main(prefix: str, mode: str, shape: str, runs: str) -> None:
    """Load the model and run it ``runs`` times."""
    predictor = Predictor(configuration(Path(prefix), mode, threads=1))
    generator = np.random.default_rng(0)
    images = generator.standard_normal((1, *map(int, shape.split(",")))).astype("float32")
    for _ in range(int(runs)):
        predictor.scores(images)


if __name__ == "__main__":
    main(*sys.argv[1:])
