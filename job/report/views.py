"""What the report shows of each task: measures of table I, intervals, and the gate.

A report of an older version has no task. Its task is classification.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.stats import is_above_chance

MODELS = ("fp32", "qat_fake", "int8")


@dataclass(frozen=True)
class Measure:
    """A measure of a model's quality, in percent.

    Attributes:
        key: its key in the accuracy record; ``KEY_interval``, ``KEY_drop`` and
            ``KEY_drop_interval`` belong to it.
        title: name at the start of a heading.
        text: name inside a sentence.
    """

    key: str
    title: str
    text: str

    @property
    def short(self) -> str:
        """The title inside a sentence; abbreviations keep their capitals."""
        return self.title if self.title.startswith("mAP") else self.title.lower()


@dataclass(frozen=True)
class TaskGate:
    """The gate of a task.

    Attributes:
        name: its key in ``gates`` of manifest and report.
        path: keys of the measured value in the accuracy record.
        at_most: whether the limit is the largest accepted value; otherwise the smallest.
    """

    name: str
    path: tuple[str, ...]
    at_most: bool

    def measured(self, accuracy: Mapping[str, Any]) -> float:
        """Return the measured value."""
        value: Any = accuracy
        for key in self.path:
            value = value[key]
        return float(value)

    def passed(self, limit: float, value: float) -> bool:
        """Return whether a value is within a limit."""
        # Drops are multiples of 100 / images, so a floating-point error must not fail the gate.
        return value <= limit + 1e-9 if self.at_most else value >= limit - 1e-9


@dataclass(frozen=True)
class View:
    """What the report shows of a task.

    Attributes:
        measures: the measures of table I, the primary measure first; empty if models are compared
            by their signal-to-noise ratio only.
        whole_of: number of classes up to which the other measures are always 100.
        interval_of_model: how the interval of a measure is computed; empty without intervals.
        interval_of_drop: how the interval of a drop is computed.
        gate: the gate of the task.
        plots: names of the plots below table I.
    """

    measures: tuple[Measure, ...]
    whole_of: int
    interval_of_model: str
    interval_of_drop: str
    gate: TaskGate
    plots: tuple[str, ...]

    @property
    def primary(self) -> Measure | None:
        """The measure that models are compared by."""
        return self.measures[0] if self.measures else None

    def shown(self, report: Mapping[str, Any]) -> tuple[Measure, ...]:
        """Return the measures of a report that are not always 100."""
        whole = report["manifest"]["model"].get("classes", 1) <= self.whole_of
        return self.measures[:1] if whole else self.measures


CLASSIFICATION = View(
    measures=(
        Measure("top1", "Top-1", "top-1 accuracy"),
        Measure("top5", "Top-5", "top-5 accuracy"),
    ),
    whole_of=5,
    interval_of_model="Wilson",
    interval_of_drop="Newcombe's method 10",
    gate=TaskGate("max_top1_drop", ("paired", "top1_drop"), True),
    plots=("accuracy",),
)
DETECTION = View(
    measures=(
        Measure("map", "mAP@0.5", "mAP@0.5"),
        Measure("map_11_point", "mAP@0.5, 11 points", "mAP@0.5 at 11 points"),
    ),
    whole_of=0,
    interval_of_model="",
    interval_of_drop="bootstrap over images",
    gate=TaskGate("max_map_drop", ("paired", "map_drop"), True),
    plots=("accuracy", "curves"),
)
OUTPUTS = View(
    measures=(),
    whole_of=0,
    interval_of_model="",
    interval_of_drop="",
    gate=TaskGate("int8_matches_fp32", ("closeness", "int8", "signal_to_noise_db"), False),
    plots=(),
)
VIEWS: Mapping[str, View] = {
    "classification": CLASSIFICATION,
    "detection": DETECTION,
    "outputs": OUTPUTS,
}


def view_of(report: Mapping[str, Any]) -> View:
    """Return the view of a run's report."""
    return VIEWS[report["manifest"].get("task", "classification")]


def view_of_accuracy(accuracy: Mapping[str, Any]) -> View:
    """Return the view of an accuracy record; the models of a matrix can have different tasks."""
    found = accuracy.get("fp32", {})
    views = (CLASSIFICATION, DETECTION)
    return next((view for view in views if view.measures[0].key in found), OUTPUTS)


def chance_notice(report: Mapping[str, Any]) -> str:
    """Return a warning if FP32 is no better than chance; otherwise an empty text."""
    classes = report["manifest"]["model"]["classes"]
    fp32 = report["accuracy"].get("fp32", {})
    if "top1_interval" not in fp32 or is_above_chance(fp32["top1_interval"], classes):
        return ""
    return (
        f"FP32 top-1 is {fp32['top1']:.2f}%, no better than chance ({100 / classes:.3g}%), so "
        "comparing INT8 with it is meaningless. Check the weights and the training."
    )
