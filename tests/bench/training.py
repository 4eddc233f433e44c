"""Compares the speed of quantization-aware training with Paddle's and with oneDNN's convolutions.

    .venv/bin/python tests/bench/training.py --models resnet50 --side 224 --batch 16

For each network, one process runs the two programs in turns, with the same initial weights and the
same batches. It prints images/s, the ratio with its 95% interval (paired by steps), and the
difference of the first losses. Two more processes run one program each, as a stage does, and
measure its peak memory. --threads sets the number of threads.

    .venv/bin/python tests/bench/training.py --peer PYTHON_WITH_TORCHVISION --models resnet50

compares with PyTorch instead (torch_training.py). One process of each trains the same network on
batches of the same size. They run their steps in turns. The job's process trains as a stage does.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from job import stats
from job.benchmark.rounds import in_turn
from job.process.memory import peak_rss_bytes

MODELS = ("mobilenet_v1", "mobilenet_v2", "resnet50", "resnet101", "vgg16", "vgg19")
ROOT = Path(__file__).parents[2]
CLASSES = 1000
PROGRAMS = ("paddle", "onednn")
# Memory does not grow after the second step.
MEMORY_STEPS = 3
# The first steps build kernels and allocate memory.
UNTIMED_STEPS = 2


def main() -> None:
    """Measure each network in processes of its own and print a line for it."""
    options = arguments()
    if options.one and options.alone:
        for step in answered(options):
            print(json.dumps(step), flush=True)
        return
    if options.one:
        print(json.dumps(measured(options)))
        return
    rows = []
    for model in options.models:
        if options.peer:
            row = with_peer(options, model)
        else:
            row = in_process(options, model)
            row["peak_bytes"] = {one: peak_bytes(options, model, one) for one in PROGRAMS}
        rows.append(row)
        print(line(row), flush=True)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2))


def in_process(options: argparse.Namespace, model: str) -> Any:
    """Compare the programs of a network in a new process."""
    command = [sys.executable, __file__, "--one", model, *sys.argv[1:]]
    done = subprocess.run(
        command, env=environment(options), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{model}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def environment(options: argparse.Namespace) -> dict[str, str]:
    """The environment of a process: Paddle and PyTorch read the threads when they are imported."""
    paths = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": paths}


class Trainer:
    """A process that trains one step for each line that it is sent."""

    def __init__(self, command: list[str], options: argparse.Namespace) -> None:
        # Both write warnings and bars there, which matter only if they fail.
        self._errors = TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command,
            env=environment(options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def step(self) -> dict[str, float]:
        """Train one step; return its seconds, and the peak memory so far in bytes."""
        sent, answers = self._process.stdin, self._process.stdout
        assert sent is not None
        assert answers is not None
        sent.write("\n")
        sent.flush()
        line = answers.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise SystemExit(f"{self._process.args!r}:\n{self._errors.read()[-4000:]}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def ours(options: argparse.Namespace, model: str, program: str) -> Trainer:
    """A process that trains with one of the job's programs."""
    command = [sys.executable, __file__, "--one", model, "--alone", program, *sys.argv[1:]]
    return Trainer(command, options)


def peak_bytes(options: argparse.Namespace, model: str, program: str) -> float:
    """Train with one of the programs, and return the peak memory of its process."""
    trainer = ours(options, model, program)
    peak = [trainer.step()["peak_bytes"] for _ in range(MEMORY_STEPS)][-1]
    trainer.close()
    return peak


def with_peer(options: argparse.Namespace, model: str) -> dict[str, Any]:
    """Train a network in PyTorch and in the job, in turns."""
    names = (model, "--classes", CLASSES, "--side", options.side, "--batch", options.batch)
    command = [options.peer, str(Path(__file__).with_name("torch_training.py")), *map(str, names)]
    command += ["--threads", str(options.threads)] + ["--fp32"] * options.fp32
    trainers = {"pytorch": Trainer(command, options), "job": ours(options, model, "onednn")}
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in trainers}
    for step in range(UNTIMED_STEPS + options.steps):
        for name in in_turn(list(trainers), step):
            steps[name].append(trainers[name].step())
    for trainer in trainers.values():
        trainer.close()
    seconds = {name: [s["seconds"] for s in done[UNTIMED_STEPS:]] for name, done in steps.items()}
    peaks = {name: done[-1]["peak_bytes"] for name, done in steps.items()}
    return {**compared(options, model, seconds), "peak_bytes": peaks}


def compared(
    options: argparse.Namespace, model: str, seconds: dict[str, list[float]]
) -> dict[str, Any]:
    """The row of two ways of training; the ratio is that of the second to the first."""
    rates = {name: [options.batch / taken for taken in s] for name, s in seconds.items()}
    return {
        "model": model,
        "side": options.side,
        "batch": options.batch,
        "threads": options.threads,
        "fp32": options.fp32,
        "images_per_second": {name: stats.mean_throughput(one) for name, one in rates.items()},
        "ratio": asdict(stats.paired_ratio(*rates.values())),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--side", type=int, default=224, help="of the images, in pixels (224)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="of each program, at least 2 (8)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fp32", action="store_true", help="train without fake quantization")
    parser.add_argument("--peer", help="compare with PyTorch: a Python with torch and torchvision")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--alone", choices=PROGRAMS, help=argparse.SUPPRESS)
    return parser.parse_args()


def opened(options: argparse.Namespace) -> Any:
    """Return the session of the network."""
    # It sets flags that Paddle reads when it is imported.
    from job.engine.training.session import open_session

    return open_session(
        name=options.one,
        callable_=None,
        inference_model=None,
        classes=CLASSES,
        input_shape=(3, options.side, options.side),
        width=1.0,
        seed=0,
        label_smoothing=0.0,
    )


def answered(options: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Train one step with one of the programs for each line of standard input."""
    session = opened(options)
    from job.engine.training.collective import SingleProcess
    from job.engine.training.evaluation import TrainingBatch
    from job.engine.training.stepper import Stepper

    with session.active():
        found, rate = programs_of(session, fp32=options.fp32)
        images, labels = batch_of(session, options)
        stepper = Stepper(
            found[options.alone],
            session.classifier.loss,
            rate,
            session.feeds,
            session.scope,
            session.executor,
            SingleProcess(),
            0,
        )
        for step, _ in enumerate(sys.stdin):
            began = time.perf_counter()
            stepper.run(TrainingBatch(images, (labels,)), 1e-4, step)
            yield {"seconds": time.perf_counter() - began, "peak_bytes": peak_rss_bytes()}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Time the programs of one network in turns."""
    session = opened(options)
    from job.engine.training import malloc, onednn_cache

    malloc.keep_memory()
    with session.active():
        both, _ = programs_of(session, fp32=options.fp32)
        onednn_cache.free_op_by_op(both["onednn"])
        losses, seconds = timed(session, both, options)
    # From the same weights: afterwards rounding to 8 bits makes much of the smallest difference.
    first, other = (found[0] for found in losses.values())
    # The first step of each also builds its kernels.
    seconds = {name: taken[1:] for name, taken in seconds.items()}
    return {
        **compared(options, options.one, seconds),
        "loss_difference": abs(other - first) / first,
        "losses": losses,
    }


def programs_of(session: Any, *, fp32: bool) -> tuple[dict[str, Any], str]:
    """Return the training program with Paddle's convolutions, and with oneDNN's.

    The second result is the name of the learning rate's variable.

    Args:
        session: an open session; it is active.
        fp32: train without fake quantization.
    """
    from job.doctor import smoke
    from job.engine.quantize import fake_quantize, qat
    from job.engine.training import loop as training
    from job.engine.training import programs

    # isort: split
    import numpy as np

    classifier, scope = session.classifier, session.scope
    if not fp32:
        qat.prepare(session, smoke.SETTINGS, pact=False)
    rate = training.add_optimizer(
        classifier.train,
        classifier.startup,
        classifier.loss,
        name="momentum",
        momentum=0.9,
        weight_decay=1e-4,
    )
    session.executor.run(classifier.startup)
    program = classifier.train
    if not fp32:
        program = fake_quantize.insert(program, scope, smoke.SETTINGS, for_test=False)
    programs.write_variables(scope, {rate: np.array([1e-4], "float32")})
    return dict(zip(PROGRAMS, (program, training.with_onednn(program)), strict=True)), rate


def batch_of(session: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """Return images and labels."""
    import numpy as np

    generator = np.random.default_rng(0)
    images = generator.standard_normal((options.batch, *session.input_shape)).astype("float32")
    return images, generator.integers(0, CLASSES, options.batch)


def timed(
    session: Any, both: dict[str, Any], options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Run the programs in turns from the same weights; return losses and seconds of each step."""
    from job.engine.training import programs, ready_names

    # isort: split
    import paddle  # noqa: TID251

    classifier, scope = session.classifier, session.scope
    images, labels = batch_of(session, options)
    feed = {programs.IMAGE: images, ready_names.LABEL: labels.reshape(-1, 1)}
    start = programs.read_variables(scope, programs.persistables(both["paddle"]))
    states = dict.fromkeys(both, start)
    losses: dict[str, list[float]] = {name: [] for name in both}
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for step in range(options.steps + 1):
        for name in in_turn(list(both), step):
            one = both[name]
            programs.write_variables(scope, states[name])
            paddle.seed(0)  # all of them drop the same values out
            began = time.perf_counter()
            (loss,) = session.executor.run(one, feed, [classifier.loss])
            seconds[name].append(time.perf_counter() - began)
            losses[name].append(float(loss))
            states[name] = programs.read_variables(scope, programs.persistables(one))
    return losses, seconds


def line(row: dict[str, Any]) -> str:
    """A row of the table, images/s."""
    speeds = "  ".join(f"{name} {speed:7.2f}" for name, speed in row["images_per_second"].items())
    low, high = row["ratio"]["interval"]
    peaks = "  ".join(f"{name} {peak / 2**30:.2f} GiB" for name, peak in row["peak_bytes"].items())
    difference = row.get("loss_difference")
    losses = "" if difference is None else f"  first losses differ by {100 * difference:.4f}%"
    return (
        f"{row['model']:18} {row['side']} pixels, batch {row['batch']}, {row['threads']} threads: "
        f"{speeds}  ratio {row['ratio']['value']:.2f} ({low:.2f}-{high:.2f})  "
        f"peak memory {peaks}{losses}"
    )


if __name__ == "__main__":
    main()
