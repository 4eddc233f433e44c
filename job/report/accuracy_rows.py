"""Rows of table I as dataclasses, for any task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.report.views import MODELS, View, view_of, view_of_accuracy
from job.stats import Interval


@dataclass(frozen=True)
class Score:
    """One measure of one model.

    Attributes:
        value: percent; None if it is not defined.
        interval: percent, 95%; None if the task has no such interval.
        change: this model minus FP32 in percentage points; None for FP32 itself.
        change_interval: percentage points, 95%, paired; for INT8 and the primary measure only.
    """

    value: float | None
    interval: Interval | None
    change: float | None
    change_interval: Interval | None


@dataclass(frozen=True)
class AccuracyRow:
    """Table I of a run: one saved model on the test split.

    Attributes:
        model: ``fp32``, ``qat_fake`` or ``int8``; another engine's name for its INT8 model.
        scores: each measure of the task, in the order of ``View.measures``.
    """

    model: str
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class MatrixAccuracyRow:
    """Table I of a matrix: one model, measured or published, in percent; None if unknown.

    Attributes:
        model: name of the model.
        published: whether the figures were published; otherwise they were measured.
        view: the measures of the model's task.
        fp32: the primary measure of FP32.
        fake: each measure of the fake-quantized model.
        int8: each measure of INT8.
    """

    model: str
    published: bool
    view: View
    fp32: float | None
    fake: tuple[float | None, ...]
    int8: tuple[float | None, ...]


def accuracy_rows(report: Mapping[str, Any]) -> tuple[AccuracyRow, ...]:
    """Return table I of a run: FP32, fake-quantized, INT8, then INT8 in other engines."""
    view, accuracy = view_of(report), report["accuracy"]
    if not view.measures:
        return ()
    models = {**{name: accuracy[name] for name in MODELS}, **accuracy["engines"]}
    return tuple(
        AccuracyRow(
            model, tuple(_score(accuracy, model, found, each.key) for each in view.measures)
        )
        for model, found in models.items()
    )


def _score(accuracy: Mapping[str, Any], model: str, found: Mapping[str, Any], key: str) -> Score:
    value, fp32 = found[key], accuracy["fp32"][key]
    known = model != "fp32" and value is not None and fp32 is not None
    drop = accuracy["paired"].get(f"{key}_drop_interval") if model == "int8" else None
    return Score(
        value=value,
        interval=_interval(found.get(f"{key}_interval")),
        change=value - fp32 if known else None,
        # The report holds the drop, FP32 minus INT8; a change has the other sign.
        change_interval=None if drop is None else (-drop[1], -drop[0]),
    )


def matrix_accuracy_rows(report: Mapping[str, Any]) -> tuple[MatrixAccuracyRow, ...]:
    """Return table I of a matrix: each model's measured, then its published accuracy, if any."""
    rows = []
    for entry in report["matrix"]:
        accuracy, view = entry["accuracy"], view_of(report)
        if accuracy is not None:
            view = view_of_accuracy(accuracy)
        keys = [measure.key for measure in view.measures]
        if accuracy is not None and keys:
            fake, int8 = (
                tuple(accuracy[model][key] for key in keys) for model in ("qat_fake", "int8")
            )
            fp32 = accuracy["fp32"][keys[0]]
            rows.append(MatrixAccuracyRow(entry["model"], False, view, fp32, fake, int8))
        published = entry["published"] or {}
        fake, int8 = (
            tuple(published.get(f"{model}_{key}") for key in keys) for model in ("qat_fake", "int8")
        )
        if any(value is not None for value in (*fake, *int8)):
            rows.append(MatrixAccuracyRow(entry["model"], True, view, None, fake, int8))
    return tuple(rows)


def _interval(bounds: Any) -> Interval | None:
    return None if bounds is None else (float(bounds[0]), float(bounds[1]))
