"""Training states on disk, and what they hold."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path

import numpy as np

from job.events import Events
from job.storage.files import atomic_write

BEST, EVALUATION = "best.npz", "evaluation"


@dataclass(frozen=True)
class Evaluation:
    """Accuracy on the selection split after ``step`` steps, in percent."""

    step: int
    top1: float
    top5: float


@dataclass
class Progress:
    """Where training stands; saved with each checkpoint.

    Attributes:
        step: steps done.
        seconds: time spent in steps and evaluations.
        images: images trained on.
        best: the best evaluation so far.
    """

    step: int = 0
    seconds: float = 0.0
    images: int = 0
    best: Evaluation | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def advance(self, images: int, seconds: float) -> float:
        """Count one more step; returns its images per second."""
        self.step += 1
        self.images += images
        self.seconds += seconds
        return images / seconds


class Checkpoints:
    """Training states on disk: written whole or not at all, the last two kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, values: Mapping[str, np.ndarray], progress: Progress) -> None:
        """Write the state after ``progress.step`` steps."""
        state = json.dumps(asdict(progress)).encode()
        path = self.folder / f"step-{progress.step:09d}.npz"
        write_arrays(path, {**values, "progress": np.frombuffer(state, np.uint8)})
        for old in sorted(self.folder.glob("step-*.npz"))[:-2]:
            old.unlink()

    def newest(self, events: Events) -> tuple[dict[str, np.ndarray], Progress] | None:
        """The newest state that can be read; a damaged one is named and passed over."""
        for path in sorted(self.folder.glob("step-*.npz"), reverse=True):
            try:
                values = read_arrays(path)
                state = json.loads(values.pop("progress").tobytes())
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
                events.message(
                    f"{path.name} is damaged ({error}); trying the one before", "warning"
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
    """Read what ``write_arrays`` wrote; its checksums are verified."""
    # numpy leaves a file that it opened itself open when it is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write_best(path: Path, values: Mapping[str, np.ndarray], evaluation: Evaluation) -> None:
    """Write the best weights so far and, in the same file, the evaluation that made them so.

    When a kill took the steps after a checkpoint, the file is newer than what the checkpoint tells.
    """
    write_arrays(path, {**values, EVALUATION: np.array(astuple(evaluation), "float64")})


def read_best(path: Path) -> tuple[dict[str, np.ndarray], Evaluation | None]:
    """Weights by name and their evaluation; None of weights that nothing was trained for."""
    values = read_arrays(path)
    found = values.pop(EVALUATION, None)
    return values, None if found is None else Evaluation(int(found[0]), *found[1:].tolist())
