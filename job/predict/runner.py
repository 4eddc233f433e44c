"""Measures accuracy and speed of a saved model on a packed file.

The work runs in child processes (:mod:`job.predict.main`), because Paddle reads its thread count
when it is imported, and oneDNN reads its log setting when its library loads.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job import errors, stats
from job.engine.inference.pir_file import SUFFIX as PIR_SUFFIX
from job.engine.inference.pir_file import program_file
from job.pipeline.crash import last_lines
from job.process.environment import environment
from job.process.json_channel import ChildProcess, describe_exit
from job.profile import onednn_log
from job.report.deploy import FILES, ONNXRUNTIME, OPENVINO
from job.text_format import plural
from job.ui.protocol import Ui

PROFILE_RUNS = 4
_OTHER_PROGRAMS = (FILES[OPENVINO][0], FILES[ONNXRUNTIME][0])
_SUFFIXES = (".pdmodel", PIR_SUFFIX, ".pdiparams")


@dataclass(frozen=True)
class Trial:
    """The options of ``job predict``.

    Attributes:
        infer_model: folder of a saved model, or the model's path with or without suffix.
        infer_data: packed file.
        repeat: number of calls with each batch.
        warmup_size: number of untimed batches at the start.
        batch_size: images of a batch.
        iterations: number of batches; None for all batches of the file.
        num_threads: number of threads, each pinned to its own core.
        with_accuracy_layer: whether the model must have an accuracy layer; None to accept both.
        skip_batch_num: number of batches at the start that are not included in the speed.
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
    """Run a model and return the JSON object of ``job predict --json``; ``primitives`` is None.

    Raises:
        DataError: the model or the packed file is missing or invalid, or they do not match.
        UsageError: the options do not match the model or the file.
        MachineError: there are fewer cores than threads.
        StageCrashed: the child process ended without a result.
    """
    result, _ = _run(trial, ui, profile_runs=0)
    return document(trial, result)


def document(trial: Trial, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object of ``job predict --json``, which the native tester prints as well.

    Args:
        trial: the options.
        result: the result that ``job.predict.main`` sent.
    """
    milliseconds, size = result["milliseconds"], result["batch_size"]
    images = result["images"]
    return {
        "tester": "python",
        "paddle": result["paddle"],
        "model": {
            "prefix": str(find_model(trial.infer_model)),
            "kind": result["kind"],
            "input_shape": result["input_shape"],
            "classes": result["classes"],
            "accuracy_layer": result["accuracy_layer"],
        },
        "data": {"file": str(trial.infer_data), "images": result["file_images"]},
        "settings": {
            "batch_size": size,
            "iterations": result["iterations"],
            "repeat": trial.repeat,
            "warmup_size": trial.warmup_size,
            "skip_batch_num": trial.skip_batch_num,
            "num_threads": trial.num_threads,
        },
        "accuracy": {
            "images": images,
            "top1_correct": result["top1"],
            "top5_correct": result["top5"],
            "top1": 100 * result["top1"] / images,
            "top5": None if result["top5"] is None else 100 * result["top5"] / images,
        },
        "speed": {
            "images_per_second": 1000 * len(milliseconds) * size / sum(milliseconds),
            "latency_ms": asdict(stats.percentiles(milliseconds)),
            "calls": len(milliseconds),
            "load_seconds": result["load_seconds"],
        },
        "primitives": None,
    }


def profile(trial: Trial, ui: Ui) -> list[dict[str, object]]:
    """Return the oneDNN primitives of one call with the first batch.

    Returns:
        Rows of :func:`job.profile.onednn_log.summarize`.

    Raises:
        DataError, UsageError, MachineError, StageCrashed: as for :func:`predict`.
    """
    log = _run(trial, ui, profile_runs=PROFILE_RUNS)[1]
    return onednn_log.summarize(onednn_log.last_run(onednn_log.parse(log), PROFILE_RUNS))


def find_model(location: Path) -> Path:
    """Return a model's path without suffix.

    Args:
        location: a folder, or a model's path with or without suffix.

    Raises:
        DataError: there is no model, or there are several.
    """
    hint = (
        "Set --infer-model to a folder such as runs/digits/int8, or to the path of a model in it."
    )
    if location.is_dir():
        models = sorted(location.glob("*.pdmodel")) or [
            program
            for program in sorted(location.glob(f"*{PIR_SUFFIX}"))
            if program.with_suffix(".pdiparams").is_file()
        ]
        if any((location / file).is_file() for file in _OTHER_PROGRAMS):
            hint = "--infer-data measures models for Paddle only. Use --image for this model."
        elif not models:
            hint += " Save models of other formats (__model__) as .pdmodel and .pdiparams."
        if len(models) != 1:
            names = ", ".join(path.name for path in models) or "none"
            raise errors.DataError(
                f"{location}: expected one .pdmodel file, or one .json file with .pdiparams; "
                f"found {names}",
                hint,
            )
        location = models[0]
    prefix = location.with_suffix("") if location.suffix in _SUFFIXES else location
    for path in (program_file(prefix), Path(f"{prefix}.pdiparams")):
        if not path.is_file():
            raise errors.DataError(f"{path} is missing", hint)
    return prefix


def check_exists(data: Path) -> None:
    """Check that a packed file exists.

    Raises:
        DataError: the file is missing.
    """
    if not data.is_file():
        raise errors.DataError(
            f"packed file {data} is missing", "Write a packed file with `job pack MANIFEST`."
        )


def _run(trial: Trial, ui: Ui, profile_runs: int) -> tuple[dict[str, Any], list[str]]:
    """Do the work in a child process; return its result and the lines of its log."""
    prefix = find_model(trial.infer_model)
    check_exists(trial.infer_data)
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
            f"--num-threads: found {threads} threads, but only {plural(len(cores), 'core')} "
            "can be used",
            "Lower --num-threads, or give the container more cores.",
        )
    return cores[:threads]
