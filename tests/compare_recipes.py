"""Compares recipes of quantization on one manifest, and prints a table for docs/accuracy.md.

    python tests/compare_recipes.py manifest.json --output runs/recipes [--allow-code] [--only NAME]

All recipes share the output folder, so the images and the FP32 model are prepared once. The table
shows the INT8 model against FP32 on the test images. "cost" is the time of the stages calibrate and
qat.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
    parser.add_argument("--only", nargs="*", choices=RECIPES)
    arguments = parser.parse_args()
    print("| recipe | SNR dB | 95% | same class % | KL | top-1 % | FP32 top-1 % | cost s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in arguments.only or RECIPES:
        run(arguments, RECIPES[name])
        print(row(name, arguments.output), flush=True)


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
    close = measured["closeness"]["int8"]
    low, high = close["signal_to_noise_interval"]
    cost = stages["calibrated"]["seconds"] + stages["qat"]["seconds"]
    return (
        f"| {name} | {close['signal_to_noise_db']:.2f} | {low:.2f} to {high:.2f} "
        f"| {close['same_top1']:.2f} | {close['divergence']:.4f} | {measured['int8']['top1']:.2f} "
        f"| {measured['fp32']['top1']:.2f} | {cost:.0f} |"
    )


if __name__ == "__main__":
    main()
