"""INT8 of each engine against OpenVINO's NNCF, all in one interleaved run on one core.

    make engines
    .venv/bin/python tests/compare_engines.py --output compare.json

For each network it makes, from the same FP32 model and the same calibration images, our INT8 models
(Paddle, OpenVINO and, if asked for, ONNX Runtime) and NNCF's post-training INT8 model, and times
all of them in turn. Weights are drawn, which speed does not depend on. ``compare_recipes.py``
compares the accuracy of trained networks.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job import stats
from job.benchmark import cpu_pinning
from job.benchmark.rounds import in_turn, started
from job.benchmark.samples import BenchmarkSetting
from job.benchmark.timer import Candidate
from job.host import read_host
from job.pipeline.fingerprint import library_versions, package_versions
from job.stages.engine_packages import PACKAGES, check_installed

MODELS = ("mobilenet_v1", "mobilenet_v2", "resnet50", "resnet101", "vgg16", "vgg19")
SHAPE = (3, 224, 224)
CALIBRATION_IMAGES = 16
NNCF = "nncf"
# Name in the table -> folder in the work directory, and the mode that it is timed in. NNCF's model
# runs in the very code that ours runs in.
TIMED = {
    "fp32": ("fp32/model", "onednn"),
    "paddle": ("int8/model", "int8"),
    "paddle_openvino": ("int8_paddle_openvino", "paddle_openvino"),
    "openvino": ("int8_openvino", "openvino"),
    "onnxruntime": ("int8_onnxruntime", "onnxruntime"),
    NNCF: ("nncf", "openvino"),
}
OURS = ("paddle", "paddle_openvino", "openvino", "onnxruntime")
DEFAULT = ("paddle", "paddle_openvino", "openvino", NNCF)
WARMUP_BATCHES = 2


@dataclass(frozen=True)
class Row:
    """One network at one batch size; ``ratio`` is the best of ours over NNCF, paired by round."""

    model: str
    batch_size: int
    images_per_second: Mapping[str, float]
    p50_ms: Mapping[str, float]
    best: str
    ratio: float
    ratio_interval: Sequence[float]


def main() -> None:
    """Make what is missing, time it, print the table and write the JSON."""
    options = arguments()
    if options.make:
        make(options.make, options.work / options.make)
        return
    if options.nncf:
        make_nncf(options.work / options.nncf)
        return
    check_installed(name for name in PACKAGES if name in options.timed)
    rows = []
    for model in options.models:
        for step in ("make", "nncf"):
            in_own_process(step, model, options.work)
        for batch_size in options.batches:
            rows.append(timed(model, batch_size, options))
            print(line(rows[-1], options.timed), flush=True)
    packages = [name for engine in PACKAGES.values() for name in engine]
    report = {
        "host": read_host().as_report(),
        "versions": {**library_versions(), **package_versions([*packages, NNCF])},
        "isa_cap": options.isa_cap,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "rows": [asdict(row) for row in rows],
    }
    options.output.write_text(json.dumps(report, indent=2))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 50])
    parser.add_argument("--timed", nargs="+", choices=TIMED, default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=12, choices=range(2, 1000), metavar="N",
                        help="turns of each model, at least 2 (12)")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn (1)")
    parser.add_argument("--isa-cap", default="all", help="such as avx512_core_vnni")
    parser.add_argument("--work", type=Path, default=Path("runs/compare_engines"))
    parser.add_argument("--output", type=Path, default=Path("compare_engines.json"))
    for step in ("--make", "--nncf"):
        parser.add_argument(step, choices=MODELS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (set(options.timed) & set(OURS) and NNCF in options.timed):
        parser.error("--timed: name nncf and at least one of ours")
    return options


def in_own_process(step: str, model: str, work: Path) -> None:
    """Make a network's models in a process that ends: Paddle keeps its memory."""
    done = work / model / f"{step}.done"
    if done.exists():
        return
    command = [sys.executable, __file__, f"--{step}", model, "--work", str(work)]
    # This variable stops NNCF from sending usage statistics.
    made = subprocess.run(
        command, env={**os.environ, "CI": "true"}, capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise SystemExit(f"{model}, {step}:\n{made.stdout[-2000:]}{made.stderr[-4000:]}")
    done.touch()


def make(name: str, work: Path) -> None:
    """Write a network's FP32 model, our INT8 models and the calibration images."""
    import numpy as np

    from job.doctor import smoke
    from job.engine.int8 import build as int8
    from job.engine.quantize import fake_quantize, grid
    from job.engine.quantize.calibration import calibrate
    from job.engine.quantize.measurement import Images
    from job.engine.training import programs, random_weights
    from job.engine.training.session import open_session

    folders = {key: work / key for key in ("fp32", "fake", "int8")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    session = open_session(
        name=name,
        callable_=None,
        inference_model=None,
        classes=1000,
        input_shape=SHAPE,
        width=1.0,
        seed=0,
        label_smoothing=0.0,
    )
    size = (CALIBRATION_IMAGES, *SHAPE)
    images = np.random.default_rng(0).standard_normal(size).astype("float32")
    np.save(work / "images.npy", images)
    classifier, scope, executor = session.classifier, session.scope, session.executor
    types = ["conv2d", "depthwise_conv2d", "mul", "matmul_v2", "elementwise_add", "pool2d"]
    settings = {**smoke.SETTINGS, "quantize_op_types": types}
    with session.active():
        random_weights.draw(session, seed=0)
        programs.save_inference_model(
            classifier.evaluation, folders["fp32"] / "model", classifier.outputs, executor
        )
        fake_quantize.keep_bias_adds_whole(classifier.evaluation)
        evaluation = classifier.evaluation.clone(for_test=True)
        quantized = fake_quantize.insert(evaluation, scope, settings, for_test=True)
        grid.use_unsigned_steps(quantized)
        calibrate(classifier, quantized, scope, executor, Images(images), settings)
        program = fake_quantize.convert(quantized, scope)
        programs.save_inference_model(
            program, folders["fake"] / "model", classifier.outputs, executor
        )
    int8.build(folders["fake"] / "model", folders["int8"], types, images[:8])
    for module in engine_modules():
        out = work / f"int8_{module.__name__.split('.')[-2]}"
        out.mkdir(exist_ok=True)
        module.convert(folders["fake"] / "model", out)


def engine_modules() -> Iterator[Any]:
    """The engines that are installed."""
    from importlib.util import find_spec

    from job.engine.paddle_openvino import convert as paddle_openvino

    yield paddle_openvino
    if all(map(find_spec, PACKAGES["openvino"])):
        from job.engine.openvino import convert as openvino

        yield openvino
    if all(map(find_spec, PACKAGES["onnxruntime"])):
        from job.engine.onnxruntime import convert as onnxruntime

        yield onnxruntime


def make_nncf(work: Path) -> None:
    """Write NNCF's post-training INT8 model. Batch norms are folded, which makes it fast."""
    import numpy as np
    from nncf_models import Variant, quantize

    images = np.load(work / "images.npy")
    quantize(work / "fp32/model", images, work / NNCF, Variant(fold=True), "model.xml")


def timed(model: str, batch_size: int, options: argparse.Namespace) -> Row:
    """Time all models of a network in turns."""
    setting = BenchmarkSetting(batch_size, 1, SHAPE, isa_cap=options.isa_cap)
    pinned = cpu_pinning.pinned(setting)
    rates: dict[str, list[float]] = {name: [] for name in options.timed}
    calls: dict[str, list[float]] = {name: [] for name in options.timed}
    for done in range(options.rounds):
        # In processes of its own, as job.benchmark.rounds says.
        names = in_turn(options.timed, done)
        candidates = [
            Candidate(mode, options.work / model / folder)
            for folder, mode in map(TIMED.__getitem__, names)
        ]
        with started(candidates, setting, pinned) as found:
            fleets = dict(zip(names, found, strict=True))
            for fleet in found:
                fleet.time(0, WARMUP_BATCHES)
            for name in in_turn(options.timed, done // 2):
                (taken,) = fleets[name].time(options.seconds, 2)
                calls[name] += taken
                rates[name].append(1000 * batch_size * len(taken) / sum(taken))
    speeds = {name: stats.mean_throughput(found) for name, found in rates.items()}
    best = max((name for name in OURS if name in speeds), key=speeds.__getitem__)
    ratio = stats.paired_ratio(rates[NNCF], rates[best])
    return Row(
        model=model,
        batch_size=batch_size,
        images_per_second=speeds,
        p50_ms={name: stats.percentiles(found).p50 for name, found in calls.items()},
        best=best,
        ratio=ratio.value,
        ratio_interval=list(ratio.interval),
    )


def line(row: Row, names: Sequence[str]) -> str:
    """A row of the table, images/s."""
    speeds = "  ".join(f"{name} {row.images_per_second[name]:7.1f}" for name in names)
    low, high = row.ratio_interval
    return (
        f"{row.model:13}  batch {row.batch_size:3}  {speeds}  "
        f"{row.best}/{NNCF} {row.ratio:.2f} ({low:.2f}-{high:.2f})"
    )


if __name__ == "__main__":
    main()
