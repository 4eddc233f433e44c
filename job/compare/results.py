"""The results of two runs side by side, each with a verdict on run B against run A."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from job import stats, text_format
from job.compare.differences import machine_conflict
from job.compare.finished_run import FinishedRun
from job.report.accuracy_rows import Score, accuracy_rows
from job.report.cells import gate_limit
from job.report.tables import Setting, SpeedRow, model_name, scenario_name, speed_rows
from job.report.views import Measure, view_of
from job.stats import Interval
from job.stats.independent import independent_ratio

# Accuracy of the fake-quantized model is not compared, because it is not for deployment.
NOT_COMPARED = "qat_fake"
# Processes that run the same model differ in speed by a few percent.
LEAST_SPEED_CHANGE = 0.05
LEAST_SIZE_CHANGE = 0.01
# mAP has no interval of its own. A smaller change, in percentage points, is not counted.
LEAST_CHANGE = 1.0
OTHER_IMAGES = "the runs used different test images"


class Verdict(StrEnum):
    """Whether a result of run B is worse than the result of run A."""

    worse = "worse"
    better = "better"
    same = "no difference"
    unknown = "not judged"


@dataclass(frozen=True)
class Result:
    """One result of both runs.

    Attributes:
        kind: ``gate``, ``accuracy``, ``speed`` or ``size``.
        name: what was measured, such as ``INT8 top-1``.
        unit: ``percent``, ``images/s`` or ``bytes``; empty for gates.
        a: the value of run A.
        b: the value of run B.
        change: B minus A in percentage points for accuracy; otherwise B over A; None for gates.
        interval: 95% interval of ``change``; None if it is unknown.
        p_value: of the mid-p McNemar test; None without the test.
        verdict: whether B is worse.
        reason: how the verdict was reached, or why there is none.
    """

    kind: str
    name: str
    unit: str
    a: float
    b: float
    change: float | None
    interval: Interval | None
    p_value: float | None
    verdict: Verdict
    reason: str


def gate_results(a: FinishedRun, b: FinishedRun) -> Iterator[Result]:
    """Yield the gates that both runs have and that passed in one run only."""
    before = {gate["name"]: gate for gate in a.report["gates"]}
    for gate in b.report["gates"]:
        earlier = before.get(gate["name"])
        if earlier is None or {earlier["passed"], gate["passed"]} != {True, False}:
            continue
        failed = gate if gate["passed"] is False else earlier
        yield Result(
            kind="gate",
            name=gate["name"],
            unit="",
            a=earlier["value"],
            b=gate["value"],
            change=None,
            interval=None,
            p_value=None,
            verdict=Verdict.better if gate["passed"] else Verdict.worse,
            reason=f"failed in {'B' if failed is gate else 'A'} only "
            f"(required: {gate_limit(gate['name'], failed['limit'])})",
        )


def accuracy_results(a: FinishedRun, b: FinishedRun) -> Iterator[Result]:
    """Yield each measure of table I of each model that both runs have; none for other tasks."""
    view = view_of(b.report)
    if view_of(a.report) != view or None in (a.report["accuracy"], b.report["accuracy"]):
        return
    before = {row.model: row.scores for row in accuracy_rows(a.report)}
    for row in accuracy_rows(b.report):
        if row.model == NOT_COMPARED or row.model not in before:
            continue
        scores = zip(view.shown(b.report), before[row.model], row.scores, strict=False)
        for measure, one, two in scores:
            if one.value is not None and two.value is not None:
                yield _accuracy(a, b, row.model, measure, one, two)


def _accuracy(
    a: FinishedRun, b: FinishedRun, model: str, measure: Measure, one: Score, two: Score
) -> Result:
    values = float(one.value or 0), float(two.value or 0)
    paired = _paired(a, b, model) if measure.key == "top1" else None
    if paired is not None:
        low, high = (-bound for bound in reversed(paired.top1_drop_interval))
        verdict = Verdict.worse if high < 0 else Verdict.better if low > 0 else Verdict.same
        images = len(a.predictions["labels"]) if a.predictions else 0
        reason = (
            f"paired test on {text_format.plural(images, 'image')}: only A correct for "
            f"{paired.fp32_only_right}, only B for {paired.int8_only_right}"
        )
    else:
        verdict, reason = _unpaired(a, b, one, two)
    return Result(
        kind="accuracy",
        name=f"{model_name(b.report, model)} {measure.short}",
        unit="percent",
        a=values[0],
        b=values[1],
        change=values[1] - values[0],
        interval=(low, high) if paired else None,
        p_value=paired.p_value if paired else None,
        verdict=verdict,
        reason=reason,
    )


def _paired(a: FinishedRun, b: FinishedRun, model: str) -> stats.PairedComparison | None:
    """Compare two models image by image; None if they did not predict the same images."""
    one, two = a.predictions, b.predictions
    if one is None or two is None or model not in one or model not in two:
        return None
    if not np.array_equal(one["labels"], two["labels"]):
        return None
    right = [run[model] == run["labels"] for run in (one, two)]
    return stats.compare_paired(*right)


def _unpaired(a: FinishedRun, b: FinishedRun, one: Score, two: Score) -> tuple[Verdict, str]:
    """Judge by the intervals of both values, if the test images can be the same."""
    if not _same_images(a, b):
        return Verdict.unknown, OTHER_IMAGES
    if one.interval is None or two.interval is None:
        change = float(two.value or 0) - float(one.value or 0)
        reason = (
            f"no 95% interval, so a change of more than {LEAST_CHANGE:g} percentage point counts"
        )
        if abs(change) <= LEAST_CHANGE:
            return Verdict.same, reason
        return Verdict.worse if change < 0 else Verdict.better, reason
    if two.interval[1] < one.interval[0]:
        return Verdict.worse, "the 95% intervals do not overlap"
    if two.interval[0] > one.interval[1]:
        return Verdict.better, "the 95% intervals do not overlap"
    return Verdict.same, "the 95% intervals overlap"


def _same_images(a: FinishedRun, b: FinishedRun) -> bool:
    one, two = a.predictions, b.predictions
    if one is not None and two is not None:
        return np.array_equal(one["labels"], two["labels"])
    splits = [run.report["data"]["splits"]["test"]["images"] for run in (a, b)]
    return bool(splits[0] == splits[1])


def speed_results(a: FinishedRun, b: FinishedRun) -> Iterator[Result]:
    """Yield the images/s of INT8 in each engine at each setting that both runs measured."""
    conflict = machine_conflict(a.report, b.report)
    before = {row.setting: row for row in speed_rows(a.report)}
    for row in speed_rows(b.report):
        earlier = before.get(row.setting)
        if earlier is None:
            continue
        reason = conflict or _isa_conflict(earlier, row)
        engines = {speed.engine: speed for speed in earlier.engines}
        for speed in (each for each in row.engines if each.engine in engines):
            one, two = engines[speed.engine].images_per_second, speed.images_per_second
            label = "int8" if speed.engine == "paddle" else speed.engine
            yield _speed(a, b, (earlier, row), label, (one, two), reason)


def _isa_conflict(one: SpeedRow, two: SpeedRow) -> str:
    same = one.isa == two.isa
    return "" if same else f"INT8 ran with {one.isa} in A and with {two.isa} in B"


def _speed(
    a: FinishedRun,
    b: FinishedRun,
    rows: tuple[SpeedRow, SpeedRow],
    label: str,
    rates: tuple[float, float],
    conflict: str,
) -> Result:
    setting = rows[1].setting
    rounds = [run.rates.get(setting, {}).get(label) for run in (a, b)]
    measured = independent_ratio(rounds[0], rounds[1]) if rounds[0] and rounds[1] else None
    interval = measured.interval if measured else None
    verdict, reason = _speed_verdict(rows, rates[1] / rates[0], interval)
    return Result(
        kind="speed",
        name=f"{model_name(b.report, label)}, {speed_setting(setting)}",
        unit="images/s",
        a=rates[0],
        b=rates[1],
        change=rates[1] / rates[0],
        interval=None if conflict else interval,
        p_value=None,
        verdict=Verdict.unknown if conflict else verdict,
        reason=conflict or reason,
    )


def _speed_verdict(
    rows: tuple[SpeedRow, SpeedRow], change: float, interval: Interval | None
) -> tuple[Verdict, str]:
    unstable = [run for run, row in zip("AB", rows, strict=True) if not row.stable]
    if unstable:
        return Verdict.unknown, f"the measurement in {' and '.join(unstable)} is unstable"
    if interval is None:
        return Verdict.unknown, "no 95% interval, because a run has a single round or no timings"
    control = rows[1].fp32 / rows[0].fp32
    reason = f"FP32 in the same benchmarks: {text_format.times(control)} the images/s of A"
    if interval[1] < 1 and change < 1 - LEAST_SPEED_CHANGE:
        return Verdict.worse, reason
    if interval[0] > 1 and change > 1 + LEAST_SPEED_CHANGE:
        return Verdict.better, reason
    return Verdict.same, reason


def speed_setting(setting: Setting) -> str:
    """Return a setting in words, such as ``batch 16, 1 thread``."""
    cap = "" if setting.isa_cap == "all" else f", ISA cap {setting.isa_cap}"
    return f"batch {setting.batch_size}, {scenario_name(setting)}{cap}"


def size_results(a: FinishedRun, b: FinishedRun) -> Iterator[Result]:
    """Yield the size of each model to deploy that both runs have."""
    one, two = a.report["models"], b.report["models"]
    for model in (name for name in one if name in two and name != NOT_COMPARED):
        before, after = one[model]["bytes"], two[model]["bytes"]
        change = after / before
        verdict = Verdict.same
        if abs(change - 1) > LEAST_SIZE_CHANGE:
            verdict = Verdict.worse if change > 1 else Verdict.better
        yield Result(
            kind="size",
            name=f"{model_name(b.report, model)} model",
            unit="bytes",
            a=before,
            b=after,
            change=change,
            interval=None,
            p_value=None,
            verdict=verdict,
            reason="",
        )
