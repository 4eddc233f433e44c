"""Table I of a run and the texts below it, for any task."""

from collections.abc import Callable, Mapping
from typing import Any

from job import text_format
from job.report.accuracy_rows import Score, accuracy_rows
from job.report.render.blocks import Grid, figures, words
from job.report.tables import model_name
from job.report.views import view_of

NONE = text_format.DASH


def accuracy_grid(report: Mapping[str, Any]) -> Grid | None:
    """Return table I: the measures of the saved models; None for a task without measures."""
    view = view_of(report)
    if not view.measures:
        return None
    has_intervals, shown = bool(view.interval_of_model), view.shown(report)
    rows = tuple(
        (
            model_name(report, row.model),
            *(cell for score in row.scores[: len(shown)] for cell in _cells(score, has_intervals)),
        )
        for row in accuracy_rows(report)
    )
    columns = words("Model")
    for measure in shown:
        title = measure.title.replace(", ", ",\n")
        columns += figures(title, *(("95%\ninterval",) * has_intervals), "Change")
    engine = "its own engine" if report["accuracy"]["engines"] else "Paddle Inference"
    intervals = f"95% interval: {view.interval_of_model}. " if has_intervals else ""
    note = (
        f"{text_format.plural(report['accuracy']['images'], 'test image')}. Each saved model "
        f"was loaded into {engine} and scored. {intervals}Change: model minus FP32, in "
        "percentage points."
    )
    return Grid("Table I. Accuracy in percent", columns, rows, note)


def _cells(score: Score, has_intervals: bool) -> tuple[str, ...]:
    interval = NONE if score.interval is None else text_format.interval(*score.interval)
    return (
        percent(score.value),
        *((interval,) * has_intervals),
        NONE if score.change is None else text_format.signed(score.change),
    )


def percent(value: float | None) -> str:
    """Return a percentage as the text of a cell."""
    return NONE if value is None else f"{value:.2f}"


# Title, key, and text of each column of the closeness to FP32.
_Text = Callable[[Any], str]
_CLOSENESS: tuple[tuple[str, str, _Text], ...] = (
    ("SNR dB", "signal_to_noise_db", lambda value: f"{value:.2f}"),
    ("95%\ninterval", "signal_to_noise_interval", lambda value: text_format.interval(*value)),
    ("Same\nclass %", "same_top1", lambda value: f"{value:.2f}"),
    ("95%\ninterval", "same_top1_interval", lambda value: text_format.interval(*value)),
    ("KL", "divergence", lambda value: f"{value:.2g}"),
    ("95%\ninterval", "divergence_interval", lambda value: "{:.2g} to {:.2g}".format(*value)),
)


def closeness_grid(report: Mapping[str, Any]) -> Grid | None:
    """Return how close the outputs of each model are to FP32; None in older reports."""
    found = report["accuracy"].get("closeness")
    if not found:
        return None
    known = [column for column in _CLOSENESS if all(column[1] in row for row in found.values())]
    rows = tuple(
        (model_name(report, name), *(text(row[key]) for _, key, text in known))
        for name, row in found.items()
    )
    columns = (*words("Model"), *figures(*(title for title, _, _ in known)))
    note = "SNR: signal-to-noise ratio of the outputs against FP32."
    if any(key == "divergence" for _, key, _ in known):
        note = (
            "SNR: signal-to-noise ratio of the scores against FP32. The mean score of each image "
            "is subtracted first. KL: mean Kullback-Leibler divergence of the class probabilities "
            "from FP32, in nats. Intervals: bootstrap over images, and Wilson."
        )
    return Grid("Closeness to FP32", columns, rows, note)


def paired_text(report: Mapping[str, Any]) -> str | None:
    """Return the paired comparison of FP32 and INT8 in words; None without a measure."""
    view, paired = view_of(report), report["accuracy"].get("paired")
    if view.primary is None or paired is None:
        return None
    key = view.primary.key
    sentence, detail = "", ""
    if "fp32_only_right" in paired:
        sentence = (
            f"Correct only in FP32: {text_format.plural(paired['fp32_only_right'], 'image')}. "
            f"Correct only in INT8: {text_format.plural(paired['int8_only_right'], 'image')}. "
        )
        detail = f"; mid-p McNemar test {text_format.probability(paired['p_value'])}"
    bounds, drop = paired[f"{key}_drop_interval"], text_format.signed(-paired[f"{key}_drop"])
    interval = "no interval, because there are too few images"
    if bounds is not None:
        low, high = bounds
        span = text_format.signed_interval(-high, -low)
        interval = f"95% interval {span}, {view.interval_of_drop}{detail}"
    return (
        f"{sentence}{view.primary.title} of INT8 minus FP32 is {drop} percentage points "
        f"({interval})."
    )
