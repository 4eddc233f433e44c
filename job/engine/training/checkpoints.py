"""Reads and writes checkpoints and the best weights of a training."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from job.events import Events
from job.storage.files import atomic_write

BEST, EVALUATION = "best.npz", "evaluation"


@dataclass(frozen=True)
class Evaluation:
    """Quality on the selection split after ``step`` steps.

    Attributes:
        step: number of steps done.
        values: the values of ``Task.evaluate`` by name; None for a value that was not measured.
    """

    step: int
    values: Mapping[str, float | None]

    def __getitem__(self, name: str) -> float:
        """Return a value that was measured."""
        value = self.values[name]
        if value is None:
            raise AssertionError(f"{name} was not measured")
        return value

    def record(self) -> dict[str, float | None]:
        """Return the evaluation for a JSON file."""
        return {"step": self.step, **self.values}


@dataclass
class Progress:
    """Progress of a training; saved with each checkpoint.

    Attributes:
        step: number of steps done.
        seconds: time spent in steps and evaluations.
        images: number of images trained on.
        best: the best evaluation so far; None before the first one.
        history: reduced metrics of the steps.
        evaluations: all evaluations so far.
    """

    step: int = 0
    seconds: float = 0.0
    images: int = 0
    best: Evaluation | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def advance(self, images: int, seconds: float) -> float:
        """Count one step of ``images`` images and ``seconds``; return its images per second."""
        self.step += 1
        self.images += images
        self.seconds += seconds
        return images / seconds


class Checkpoints:
    """Checkpoints in a folder: written atomically, of which the last two are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, values: Mapping[str, np.ndarray], progress: Progress) -> None:
        """Write a checkpoint of the variables ``values`` after ``progress.step`` steps."""
        state = json.dumps(asdict(progress)).encode()
        path = self.folder / f"step-{progress.step:09d}.npz"
        write_arrays(path, {**values, "progress": np.frombuffer(state, np.uint8)})
        for old in sorted(self.folder.glob("step-*.npz"))[:-2]:
            old.unlink()

    def newest(self, events: Events) -> tuple[dict[str, np.ndarray], Progress] | None:
        """Return the newest readable checkpoint; a warning names each damaged one.

        Returns:
            Variables and progress; None without a readable checkpoint.
        """
        for path in sorted(self.folder.glob("step-*.npz"), reverse=True):
            try:
                values = read_arrays(path)
                state = json.loads(values.pop("progress").tobytes())
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
                events.message(
                    f"checkpoint {path.name} is damaged ({error}); trying an older one",
                    "warning",
                )
                continue
            evaluations = [Evaluation(**e) for e in state.pop("evaluations")]
            best = state.pop("best")
            return values, Progress(
                **state, evaluations=evaluations, best=Evaluation(**best) if best else None
            )
        return None


def write_arrays(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to an .npz file, atomically."""
    with atomic_write(path) as file:
        np.savez(file, **values)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a file of :func:`write_arrays` and verify its checksums."""
    # If numpy opened a damaged file itself, it would not close it.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write_best(path: Path, values: Mapping[str, np.ndarray], evaluation: Evaluation) -> None:
    """Write the best weights so far, with their evaluation in the same file.

    The file can be newer than the newest checkpoint, if the process was killed between the two.
    """
    text = json.dumps(asdict(evaluation)).encode()
    write_arrays(path, {**values, EVALUATION: np.frombuffer(text, np.uint8)})


def read_best(path: Path) -> tuple[dict[str, np.ndarray], Evaluation | None]:
    """Return weights by name and their evaluation, which is None for weights without training."""
    values = read_arrays(path)
    text = values.pop(EVALUATION, None)
    return values, None if text is None else Evaluation(**json.loads(text.tobytes()))
