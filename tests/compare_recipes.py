"""Compares recipes of quantization on one manifest, and prints a table for docs/accuracy.md.

    python tests/compare_recipes.py manifest.json --output runs/recipes [--allow-code] [--only NAME]

All recipes share the output folder, so the images and the FP32 model are prepared once. The table
shows the INT8 model against FP32 on the test images, and the fake-quantized model, which a CPU
without VNNI computes more exactly than INT8. "cost" is the time of the stages calibrate and
qat. NNCF quantizes the same FP32 model with the same calibration images. OpenVINO runs its
model on the same test images. Its cost is the time of ``nncf.quantize``.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from nncf_models import VARIANTS, quantize
from numpy.typing import NDArray

from job import stats
from job.data.packed import open_packed
from job.host import usable_cores
from job.stages.accuracy import BATCH
from job.stages.stage import CALIBRATION, TEST
from job.stats.closeness import closeness, score_differences

PLAIN = {"weight_rounding": "nearest", "correct_bias": False, "equalize": False}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "largest values": {"quantize": {**PLAIN, "post_algo": "abs_max"}},
    "`hist`": {"quantize": {**PLAIN, "post_algo": "hist"}},
    "`mse`": {"quantize": PLAIN},
    "`mse`, bias": {"quantize": {**PLAIN, "correct_bias": True}},
    "`mse`, bias, equalized": {"quantize": {**PLAIN, "correct_bias": True, "equalize": True}},
    "`mse`, bias, GPTQ": {"quantize": {"equalize": False}},
    "`post`": {"quantize": {}},
    "`aware`, 20 steps": {"quantize": {"strategy": "aware"}, "train": {"max_iters": 20}},
    "`aware`, 60 steps": {"quantize": {"strategy": "aware"}, "train": {"max_iters": 60}},
    "`aware`, 60 steps, labels": {
        "quantize": {"strategy": "aware"},
        "train": {"max_iters": 60, "loss": "labels"},
    },
}


def main() -> None:
    """Run the recipes and print their rows as they finish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--allow-code", action="store_true")
    parser.add_argument("--only", nargs="*", choices=[*RECIPES, *VARIANTS])
    parser.add_argument("--nncf", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.nncf:
        print(nncf_row(arguments.nncf, arguments.output))
        return
    print("| recipe | SNR dB | 95% | fake SNR dB | same class % | KL | top-1 % | FP32 % | cost s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.only or (*RECIPES, *VARIANTS):
        if name in RECIPES:
            run(arguments, RECIPES[name])
            print(row(name, arguments.output), flush=True)
        else:
            # In a process of its own: NNCF keeps its memory.
            command = [sys.executable, __file__, *sys.argv[1:], "--nncf", name]
            made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(made.stdout.splitlines()[-1], flush=True)


def run(arguments: argparse.Namespace, recipe: Mapping[str, Any]) -> None:
    """Run the job up to the accuracy stage; its output goes to standard error."""
    command = [sys.executable, "-m", "job", "run", str(arguments.manifest), "--until", "accuracy"]
    command += ["--output", str(arguments.output), "--allow-slow-isa"]
    command += ["--allow-code"] if arguments.allow_code else []
    # The recipe's own values come last and replace these.
    keys = {"quantize.strategy": "post", "gates.int8_matches_fake": None, **dict(flat(recipe))}
    for key, value in keys.items():
        command += ["--set", f"{key}={json.dumps(value) if value is not True else 'true'}"]
    subprocess.run(command, check=True, stdout=sys.stderr)


def flat(recipe: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each setting as ("section.key", value)."""
    for section, values in recipe.items():
        for key, value in values.items():
            yield f"{section}.{key}", value


def row(name: str, output: Path) -> str:
    """Return the table row of a finished run."""
    stages = {
        folder: json.loads((output / folder / "stage.json").read_text())
        for folder in ("calibrated", "qat", "accuracy")
    }
    measured = stages["accuracy"]["record"]
    cost = stages["calibrated"]["seconds"] + stages["qat"]["seconds"]
    close = measured["closeness"]
    fake = f"{close['qat_fake']['signal_to_noise_db']:.2f}"
    return format_row(
        name, close["int8"], fake, measured["int8"]["top1"], measured["fp32"]["top1"], cost
    )


def nncf_row(name: str, output: Path) -> str:
    """Return the row of NNCF's model of the FP32 model in a finished run's folder."""
    from job.engine.inference.predictor import Predictor, configuration
    from job.engine.openvino.convert import MODEL, open_model

    shape = json.loads((output / "manifest.json").read_text())["model"]["input_shape"]
    calibration, test = (
        open_packed(output / "data" / split, shape) for split in (CALIBRATION, TEST)
    )
    folder = output / "nncf"
    cost = quantize(output / "fp32/model", calibration.images, folder, VARIANTS[name], MODEL)
    models = {
        "int8": open_model(folder, usable_cores()),
        "fp32": Predictor(configuration(output / "fp32/model", "onednn", threads=usable_cores())),
    }
    scores = {key: all_scores(model, test.images) for key, model in models.items()}
    close = asdict(closeness(score_differences(scores["int8"], scores["fp32"])))
    top1 = {
        key: stats.accuracy(stats.topk_correct(values, test.labels, 1)).percent
        for key, values in scores.items()
    }
    return format_row(name, close, "", top1["int8"], top1["fp32"], cost)


def all_scores(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores of a loaded model, its first output, for images [N, C, H, W]."""
    from job.engine.inference.predictor import score_all

    return np.concatenate([outputs[0] for _, outputs in score_all(model, images, BATCH)])


def format_row(
    name: str, close: Mapping[str, Any], fake: str, int8_top1: float, fp32_top1: float, cost: float
) -> str:
    """Return a row of the table.

    Args:
        name: name of the recipe.
        close: closeness of the INT8 model's scores to those of FP32.
        fake: signal-to-noise ratio of the fake-quantized model, in dB; empty for NNCF.
        int8_top1: percent.
        fp32_top1: percent.
        cost: seconds.
    """
    low, high = close["signal_to_noise_interval"]
    return (
        f"| {name} | {close['signal_to_noise_db']:.2f} | {low:.2f} to {high:.2f} "
        f"| {fake} | {close['same_top1']:.2f} | {close['divergence']:.4f} | {int8_top1:.2f} "
        f"| {fp32_top1:.2f} | {cost:.0f} |"
    )


if __name__ == "__main__":
    main()
