"""The tester: accuracy and speed of a saved model on a packed file (tutorial, section 4).

The work is done in fresh processes (:mod:`job.predict.main`): Paddle reads its thread count when
it is imported, and oneDNN whether to log when its library loads.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job import errors, stats
from job.pipeline.crash import last_lines
from job.process.environment import environment
from job.process.json_channel import ChildProcess, describe_exit
from job.profile import onednn_log
from job.text_format import plural
from job.ui.protocol import Ui

PROFILE_RUNS = 4
_SUFFIXES = (".pdmodel", ".pdiparams")


@dataclass(frozen=True)
class Trial:
    """What to run.

    Attributes:
        infer_model: folder of a saved model, or its path with or without suffix.
        infer_data: packed file.
        repeat: calls with each batch.
        warmup_size: batches that are run before, uncounted.
        batch_size: images a batch.
        iterations: batches; None for all of the file.
        num_threads: threads, each on a core of its own.
        with_accuracy_layer: whether the model has an accuracy layer; None to find out.
        skip_batch_num: first batches that do not count for speed.
    """

    infer_model: Path
    infer_data: Path
    repeat: int = 1
    warmup_size: int = 0
    batch_size: int = 50
    iterations: int | None = None
    num_threads: int = 1
    with_accuracy_layer: bool | None = None
    skip_batch_num: int = 0


def predict(trial: Trial, ui: Ui) -> dict[str, Any]:
    """Run a model; returns what ``job predict --json`` prints, ``primitives`` being None.

    Raises:
        DataError: the model or the packed file is missing, wrong, or they do not fit.
        UsageError: the options do not fit the model or the file.
        MachineError: more threads are asked for than there are cores.
        StageCrashed: the process died.
    """
    found, _ = _run(trial, ui, profile_runs=0)
    return document(trial, found)


def document(trial: Trial, found: Mapping[str, Any]) -> dict[str, Any]:
    """What ``job predict --json`` prints, and the native tester too.

    Args:
        trial: what was run.
        found: the result that ``job.predict.main`` tells.
    """
    milliseconds, size = found["milliseconds"], found["batch_size"]
    images = found["images"]
    return {
        "tester": "python",
        "paddle": found["paddle"],
        "model": {
            "prefix": str(find_model(trial.infer_model)),
            "kind": found["kind"],
            "input_shape": found["input_shape"],
            "classes": found["classes"],
            "accuracy_layer": found["accuracy_layer"],
        },
        "data": {"file": str(trial.infer_data), "images": found["file_images"]},
        "settings": {
            "batch_size": size,
            "iterations": found["iterations"],
            "repeat": trial.repeat,
            "warmup_size": trial.warmup_size,
            "skip_batch_num": trial.skip_batch_num,
            "num_threads": trial.num_threads,
        },
        "accuracy": {
            "images": images,
            "top1_correct": found["top1"],
            "top5_correct": found["top5"],
            "top1": 100 * found["top1"] / images,
            "top5": None if found["top5"] is None else 100 * found["top5"] / images,
        },
        "speed": {
            "images_per_second": 1000 * len(milliseconds) * size / sum(milliseconds),
            "latency_ms": asdict(stats.percentiles(milliseconds)),
            "calls": len(milliseconds),
            "load_seconds": found["load_seconds"],
        },
        "primitives": None,
    }


def profile(trial: Trial, ui: Ui) -> list[dict[str, object]]:
    """The oneDNN primitives of one call with the first batch, see ``primitives.summarize``."""
    log = _run(trial, ui, profile_runs=PROFILE_RUNS)[1]
    return onednn_log.summarize(onednn_log.last_run(onednn_log.parse(log), PROFILE_RUNS))


def find_model(given: Path) -> Path:
    """A model's path without suffix.

    Raises:
        DataError: there is no model, or several.
    """
    hint = "Give a folder such as runs/digits/int8, or the path of a model in it."
    if given.is_dir():
        models = sorted(given.glob("*.pdmodel"))
        if not models:
            hint += " Models of other formats (__model__, .json) have to be saved anew."
        if len(models) != 1:
            found = ", ".join(path.name for path in models) or "none"
            raise errors.DataError(f"{given}: expected one .pdmodel in it, found {found}", hint)
        given = models[0]
    prefix = given.with_suffix("") if given.suffix in _SUFFIXES else given
    for suffix in _SUFFIXES:
        if not Path(f"{prefix}{suffix}").is_file():
            raise errors.DataError(f"{prefix}{suffix} is missing", hint)
    return prefix


def _run(trial: Trial, ui: Ui, profile_runs: int) -> tuple[dict[str, Any], list[str]]:
    """Do the work in a child process; return its result and the lines of its log."""
    prefix = find_model(trial.infer_model)
    if not trial.infer_data.is_file():
        raise errors.DataError(
            f"packed file {trial.infer_data} is missing",
            "`job pack MANIFEST` writes a packed file.",
        )
    request = {
        **asdict(trial),
        "prefix": str(prefix),
        "infer_model": str(trial.infer_model),
        "infer_data": str(trial.infer_data),
        "profile_runs": profile_runs,
        "cores": _cores(trial.num_threads),
    }
    variables = environment(trial.num_threads) | ({"ONEDNN_VERBOSE": "1"} if profile_runs else {})
    with tempfile.TemporaryDirectory(prefix="job-predict-") as folder:
        path = Path(folder) / "log.txt"
        with path.open("w") as log:
            child = ChildProcess(
                "job.predict.main", request, environment=variables, log=log, own_session=True
            )
        with closing(child):
            while message := child.receive():
                if "result" in message:
                    return message["result"], path.read_text(errors="replace").splitlines()
                done, total = message["progress"]
                ui.progress("predict", "predict", done, total, "batches")
            exit_code = child.wait()
        quoted = "".join(f"\n  | {line}" for line in last_lines(path, 0))
        raise errors.StageCrashed(
            f"the process that runs {prefix} {describe_exit(exit_code)}{quoted}",
            "Check the model's files, or lower the batch size if memory ran out.",
        )


def _cores(threads: int) -> list[int]:
    """Return one core for each thread.

    Raises:
        MachineError: there are fewer cores than threads.
    """
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise errors.MachineError(
            f"--num-threads: got {threads} threads, but only {plural(len(cores), 'core')} "
            "can be used",
            "Lower --num-threads, or give the container more cores.",
        )
    return cores[:threads]
