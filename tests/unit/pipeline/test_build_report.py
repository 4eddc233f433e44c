from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.manifest import parse
from job.pipeline.build_report import difference_notes, engine_notes, gates
from job.report.views import CLASSIFICATION
from job.stages.stage import StageOutput
from job.tasks.classification import describe, paired


def accuracy(fp32: float, int8: float, images: int = 1000) -> dict[str, Any]:
    """The record of stage `accuracy`, for two shares of right answers."""
    rights = [np.arange(images) < round(share * images) for share in (fp32, int8)]
    first, second = (describe(right, right) for right in rights)
    return {"fp32": first, "int8": second, "paired": paired(*rights)}


def speed(ratio: float, *causes: str) -> dict[str, Any]:
    """A row of the benchmark; it is unstable if causes are given."""
    reasons = [{"what": what, "advice": "Wait."} for what in causes]
    return {"ratio": ratio, "stable": not causes, "unstable_reasons": reasons}


def verdicts(
    measured: dict[str, Any],
    classes: int = 10,
    decibels: float = 30,
    speeds: Sequence[dict[str, Any]] = (speed(1.5),),
) -> dict[str, Any]:
    model = {"name": "convnet", "classes": classes, "input_shape": [3, 8, 8], "pretrained": False}
    manifest = parse(
        {
            "version": 1,
            "name": "tiny",
            "model": model,
            "data": {"format": "class_folders", "train_dir": "."},
            "gates": {"max_top1_drop": 1, "min_speedup": 2},
        },
        "m.json",
        Path("/"),
    )
    agreement = {"int8_fake": {"signal_to_noise_db": decibels}}
    rows = gates(manifest, agreement, measured, speeds)
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize(
    ("fp32", "int8", "passed"),
    [
        (0.90, 0.895, True),
        (0.90, 0.80, False),
        (0.10, 0.10, None),
        (0.10, 0.02, None),
        (0.11, 0.11, None),
        (0.15, 0.15, True),
        (0.15, 0.10, False),
    ],
)
def test_a_drop_is_judged_only_if_fp32_is_better_than_chance(
    fp32: float, int8: float, passed: bool | None
) -> None:
    rows = verdicts(accuracy(fp32, int8))
    assert rows["max_top1_drop"]["passed"] is passed
    assert (rows["max_top1_drop"]["reason"] is None) is (passed is not None)
    # Speed does not depend on the weights.
    assert rows["min_speedup"]["passed"] is False


@pytest.mark.parametrize(
    ("speeds", "passed", "unsure"),
    [
        ([speed(2.5), speed(1.5)], False, False),
        ([speed(2.5), speed(1.5, "a busy core")], False, True),
        ([speed(2.5, "a busy core"), speed(1.5)], False, False),
        ([speed(2.5, "a busy core")], True, False),
    ],
)
def test_a_gate_that_fails_on_an_unstable_speed_tells_why(
    speeds: list[dict[str, Any]], passed: bool, unsure: bool
) -> None:
    row = verdicts(accuracy(0.9, 0.9), speeds=speeds)["min_speedup"]
    assert row["passed"] is passed
    assert ("a busy core" in (row["reason"] or "")) is unsure


def test_chance_depends_on_the_classes() -> None:
    assert verdicts(accuracy(0.05, 0.05), classes=100)["max_top1_drop"]["passed"] is True
    assert verdicts(accuracy(0.52, 0.52), classes=2)["max_top1_drop"]["passed"] is None


@pytest.mark.parametrize(("decibels", "passed"), [(20.0, True), (19.9, False), (-3.0, False)])
def test_int8_must_match_what_was_trained(decibels: float, passed: bool) -> None:
    row = verdicts(accuracy(0.9, 0.9), decibels=decibels)["int8_matches_fake"]
    assert (row["limit"], row["value"], row["passed"]) == (20, decibels, passed)


def pair(drop: float, low: float, high: float) -> dict[str, Any]:
    return {"top1_drop": drop, "top1_drop_interval": [low, high]}


def test_models_that_differ_by_more_than_chance_are_noted() -> None:
    rows = {name: {"top1": top1} for name, top1 in (("fp32", 99.3), ("qat_fake", 91.8))}
    measured = {
        **rows,
        "int8": {"top1": 99.3},
        "paired": pair(0, -0.2, 0.2),
        "paired_fake": pair(7.5, 6, 9),
        "paired_int8_fake": pair(-7.5, -9, -6),
    }
    notes = difference_notes(CLASSIFICATION, measured)
    assert len(notes) == 2
    assert all("91.80%" in note and "99.30%" in note for note in notes)
    assert (
        difference_notes(CLASSIFICATION, {**measured, "paired_fake": pair(0, -1, 1)}) == notes[1:]
    )
    assert difference_notes(CLASSIFICATION, None) == []


def test_an_engine_without_a_model_is_noted() -> None:
    engines = ("paddle", "paddle_openvino")
    sound = {"paddle_openvino": StageOutput(Path("int8_paddle_openvino"), {"rejected": None})}
    assert engine_notes(engines, sound) == []
    wrong = StageOutput(Path("int8_paddle_openvino"), {"rejected": "it agrees at 9 dB only"})
    (note,) = engine_notes(engines, {"paddle_openvino": wrong})
    assert "int8_paddle_openvino/" in note
    assert "9 dB" in note
    (note,) = engine_notes(engines, {})
    assert "does not contain this engine" in note
    assert engine_notes(("paddle",), {}) == []


@pytest.mark.parametrize(("drop", "passed"), [(1.0, True), (1.01, False)])
def test_a_detector_is_judged_by_its_map(drop: float, passed: bool) -> None:
    document = {
        "version": 1,
        "name": "tiny",
        "task": "detection",
        "model": {"name": "yolov3_mobilenet_v1", "classes": 10, "input_shape": [3, 96, 96]},
        "data": {"format": "digit_scenes"},
    }
    measured = {"fp32": {"map": 80.0}, "paired": {"map_drop": drop}}
    agreement = {"int8_fake": {"signal_to_noise_db": 30}}
    manifest = parse(document, "m.json", Path("/"))
    rows = {row["name"]: row for row in gates(manifest, agreement, measured, [speed(1.5)])}
    assert "max_top1_drop" not in rows
    assert (rows["max_map_drop"]["value"], rows["max_map_drop"]["passed"]) == (drop, passed)


@pytest.mark.parametrize(("decibels", "passed"), [(18.0, True), (17.9, False)])
def test_other_networks_are_judged_by_their_outputs(decibels: float, passed: bool) -> None:
    document = {
        "version": 1,
        "name": "tiny",
        "task": "outputs",
        "model": {"inference_model": "m", "input_shape": [3, 96, 96]},
        "data": {"format": "images", "val_dir": "."},
        "quantize": {"strategy": "post"},
        "gates": {"int8_matches_fp32": 18},
    }
    measured = {"images": 9, "closeness": {"int8": {"signal_to_noise_db": decibels}}}
    agreement = {"int8_fake": {"signal_to_noise_db": 30}}
    manifest = parse(document, "m.json", Path("/"))
    rows = {row["name"]: row for row in gates(manifest, agreement, measured, [speed(1.5)])}
    assert rows["int8_matches_fp32"]["passed"] is passed
