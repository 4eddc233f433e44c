from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.manifest import parse
from job.pipeline.build_report import gates
from job.stages.accuracy import describe, paired


def accuracy(fp32: float, int8: float, images: int = 1000) -> dict[str, Any]:
    """The record of stage `accuracy`, for two shares of right answers."""
    rights = [np.arange(images) < round(share * images) for share in (fp32, int8)]
    first, second = (describe(right, right) for right in rights)
    return {"fp32": first, "int8": second, "paired": paired(*rights)}


def verdicts(measured: dict[str, Any], classes: int = 10) -> dict[str, Any]:
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
    return {row["name"]: row for row in gates(manifest, measured, [{"ratio": 1.5}])}


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


def test_chance_depends_on_the_classes() -> None:
    assert verdicts(accuracy(0.05, 0.05), classes=100)["max_top1_drop"]["passed"] is True
    assert verdicts(accuracy(0.52, 0.52), classes=2)["max_top1_drop"]["passed"] is None
