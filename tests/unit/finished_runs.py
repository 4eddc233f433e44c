"""Outputs of finished runs for the comparison: reports with made-up figures, and their files."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sample_report import IMAGES, sample_report

LABELS = np.arange(IMAGES) % 10


def predicted(right: int, wrong_first: int = 0) -> Any:
    """Predictions of which ``right`` are correct; the wrong ones begin at an image."""
    choice = LABELS.copy()
    wrong = (np.arange(IMAGES - right) + wrong_first) % IMAGES
    choice[wrong] = (choice[wrong] + 1) % 10
    return choice


def timings(report: Mapping[str, Any], rounds: Sequence[float] = (0.99, 1.0, 1.01)) -> Any:
    """The content of samples.json: the rates of INT8 in the report times each factor."""
    return [
        {
            "samples": [
                {
                    "label": "int8",
                    "rounds": [
                        [[1000 * row["batch_size"] / (row["int8"]["images_per_second"] * factor)]]
                        for factor in rounds
                    ],
                    "peak_rss_bytes": 1,
                    "conditions": {
                        "host": {},
                        "isa": row["isa"],
                        "setting": {
                            "batch_size": row["batch_size"],
                            "threads": row["threads"],
                            "input_shape": [3, 32, 32],
                            "instances": row["instances"],
                            "isa_cap": row["isa_cap"],
                        },
                    },
                }
            ]
        }
        for row in report["benchmark"]
    ]


def write_run(
    folder: Path,
    report: Mapping[str, Any] | None = None,
    *,
    int8: Any = None,
    labels: Any = LABELS,
    predictions: bool = True,
) -> Path:
    """Write a finished run: report.json, predictions.npz and samples.json."""
    document: Any = sample_report() if report is None else report
    files = {"benchmark/samples.json": json.dumps(timings(document)).encode()}
    if predictions:
        content = io.BytesIO()
        models = {"fp32": predicted(4262), "int8": predicted(4256) if int8 is None else int8}
        np.savez(content, labels=labels, **models)
        files["accuracy/predictions.npz"] = content.getvalue()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        document["artifacts"].append({"path": name, "bytes": len(data), "sha256": digest})
    (folder / "report.json").write_text(json.dumps(document))
    return folder
