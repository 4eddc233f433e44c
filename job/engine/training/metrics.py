"""The metrics of a training: one JSON line per step, and a reduced history for the report."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from job.engine.training.checkpoints import Evaluation, Progress
from job.storage.files import write_bytes


class Metrics:
    """Writes each step and evaluation as a JSON line, and keeps a reduced history in ``progress``.

    Args:
        path: the file. Lines after ``progress.step`` are removed from it.
        progress: state of the training; its ``history`` is extended.
    """

    POINTS = 500

    def __init__(self, path: Path, progress: Progress) -> None:
        self.progress = progress
        kept = []
        if path.is_file():
            lines = path.read_text().splitlines(keepends=True)
            kept = [
                ln for ln in lines if ln.endswith("\n") and json.loads(ln)["step"] <= progress.step
            ]
        # The file is replaced atomically, so that a kill cannot lose the lines of earlier steps.
        write_bytes(path, "".join(kept).encode())
        self.path = path

    def step(self, step: int, loss: float, rate: float, speed: float) -> None:
        """Record one optimizer step.

        Args:
            step: number of steps done.
            loss: training loss.
            rate: learning rate.
            speed: images per second.
        """
        line = {
            "step": step,
            # The loss of distillation is small.
            "loss": float(f"{loss:.7g}"),
            "lr": rate,
            "images_per_second": round(speed, 1),
        }
        self.write(line)
        self.progress.history.append(line)
        if len(self.progress.history) > 2 * self.POINTS:
            self.progress.history[:] = self.progress.history[1::2]

    def evaluation(self, evaluation: Evaluation) -> None:
        """Record one evaluation."""
        self.write({"step": evaluation.step, "evaluation": evaluation.record()})

    def sync(self) -> None:
        """Flush all lines to disk; called before a checkpoint of the same steps."""
        with self.path.open("a") as file:
            os.fsync(file.fileno())

    def write(self, line: Mapping[str, object]) -> None:
        """Append one line of JSON."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
