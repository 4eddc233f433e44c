"""Stage calibrate: progress, and stop requests between batches and weights."""

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import tiny

from job.data import packed
from job.engine.quantize.layers import Layer
from job.engine.quantize.rounding import rounding_steps
from job.engine.training import baseline
from job.manifest import parse
from job.stages import calibrate
from job.stages.stage import CALIBRATION, StageOutput

pytestmark = pytest.mark.engine

IMAGES = 5
DOCUMENT = {
    "version": 1,
    "name": "tiny",
    "model": {
        "name": "convnet",
        "classes": tiny.CLASSES,
        "input_shape": list(tiny.SHAPE),
        "random_weights": True,
    },
    "data": {"format": "synthetic", "mean": [0.5], "std": [0.5]},
    "baseline": {"train": {"epochs": 0}},
    "quantize": {"strategy": "post"},
}


@dataclass
class Counted(tiny.News):
    """Records the steps done after each report of a phase."""

    reports: list[tuple[str, int, int]] = field(default_factory=list)

    def progress(self, what: str, done: int, total: int, unit: str, note: str = "") -> None:
        super().progress(what, done, total, unit, note)
        self.reports.append((what, done, total))

    def steps_of(self, phase: str) -> tuple[list[int], int]:
        """Return the steps done after each report of a phase, and all its steps."""
        done = [steps for what, steps, _ in self.reports if what == phase]
        (total,) = {total for what, _, total in self.reports if what == phase}
        return done, total


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    session = tiny.open_tiny()
    with session.active():
        session.executor.run(session.classifier.startup)
    baseline.export(session, folder)
    images, labels = tiny.examples(IMAGES, 0)
    packed.write(folder / CALIBRATION, [(images, labels)], shape=tiny.SHAPE, transform="none")
    return {stage: StageOutput(folder, {}) for stage in ("prepare", "baseline")}


def run(inputs, out: Path, events: Counted):
    return calibrate.run(parse(DOCUMENT, "m.json", Path("/")), inputs, out, events)


def test_a_stop_is_honoured_after_each_report(inputs, tmp_path):
    whole = Counted()
    record = run(inputs, tmp_path, whole)
    assert record is not None
    assert (tmp_path / "start.npz").exists()
    # Each phase runs in one piece: a pause would count as time of its steps.
    phases = [phase for phase, _ in groupby(phase for phase, *_ in whole.reports)]
    assert phases == ["fp32 scores", "calibrate", "compare"]
    for phase in phases:
        done, total = whole.steps_of(phase)
        assert done == sorted(set(done))
        assert done[-1] == total
    # The last reports of calibrate are those of the weights, one each.
    done, _ = whole.steps_of("calibrate")
    rounded = record["calibration"]["gptq_weights"]
    assert np.diff(done[-rounded:]).tolist() == [1] * (rounded - 1)
    for reports in (1, whole.steps - 1):
        (out := tmp_path / str(reports)).mkdir()
        stopped = Counted(stop_after=reports)
        assert run(inputs, out, stopped) is None
        assert stopped.reports == whole.reports[:reports]
        assert not list(out.iterdir())


def test_large_weights_have_more_steps():
    small, large = (Layer("w", "x", "y", None, 1, inputs, None) for inputs in (64, 4608))
    assert rounding_steps(small, 64) == 1
    assert 5 < rounding_steps(large, 512) < 50
