"""What a training says of itself: a line a step, and a thinned history."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from job.engine.training.checkpoints import Evaluation, Progress
from job.storage.files import write_bytes


class Metrics:
    """Each step and evaluation as a line of JSON; a thinned history for the report."""

    POINTS = 500

    def __init__(self, path: Path, progress: Progress) -> None:
        self.progress = progress
        kept = []
        if path.is_file():
            lines = path.read_text().splitlines(keepends=True)
            kept = [
                ln for ln in lines if ln.endswith("\n") and json.loads(ln)["step"] <= progress.step
            ]
        # Whole or not at all: a kill in the middle must not lose the lines of earlier steps.
        write_bytes(path, "".join(kept).encode())
        self.path = path

    def step(self, step: int, loss: float, rate: float, speed: float) -> None:
        """Record one optimizer step."""
        line = {
            "step": step,
            "loss": round(loss, 6),
            "lr": rate,
            "images_per_second": round(speed, 1),
        }
        self.write(line)
        self.progress.history.append(line)
        if len(self.progress.history) > 2 * self.POINTS:
            self.progress.history[:] = self.progress.history[1::2]

    def evaluation(self, evaluation: Evaluation) -> None:
        """Record one evaluation."""
        self.write({"step": evaluation.step, "evaluation": asdict(evaluation)})

    def sync(self) -> None:
        """Bring all lines to the disk, before a checkpoint that goes on behind them."""
        with self.path.open("a") as file:
            os.fsync(file.fileno())

    def write(self, line: Mapping[str, object]) -> None:
        """Append one line of JSON."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
