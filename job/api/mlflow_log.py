"""Logs parameters, metrics and the report of a run to MLflow."""

import json
import os
from collections.abc import Iterator, Mapping
from importlib import import_module, util
from typing import Any

from job.events import Say
from job.pipeline.matrix import MatrixResult
from job.pipeline.run import RunResult
from job.report.accuracy_rows import accuracy_rows
from job.report.views import view_of
from job.uri import without_secrets

TRACKING_URI = "MLFLOW_TRACKING_URI"
# MLflow's limits for one request and for one value.
_MOST_PARAMETERS = 100
_LONGEST_VALUE = 6000


def log(result: RunResult | MatrixResult, say: Say, warn: Say) -> None:
    """Log each finished model of a result as one MLflow run, if ``MLFLOW_TRACKING_URI`` is set.

    A run that reused every result is not logged again. A failure of MLflow is a warning, because
    all results are written already.

    Args:
        result: the result of a run.
        say: callback for messages.
        warn: callback for warnings.
    """
    if not os.environ.get(TRACKING_URI):
        return
    if util.find_spec("mlflow") is None:
        warn(
            f"{TRACKING_URI} is set, but mlflow is not installed, so no result was logged to "
            f"MLflow. Install mlflow, or unset {TRACKING_URI}."
        )
        return
    reports = [run.report for run in _runs(result) if run.worked and run.report is not None]
    place = without_secrets(os.environ[TRACKING_URI])
    if reports:
        # MLflow waits for minutes if the server does not answer.
        say(f"logging the results to MLflow at {place}")
    try:
        mlflow = import_module("mlflow")
        for report in reports:
            _log_report(mlflow, report)
    # MLflow also raises the errors of its libraries for files, HTTP and S3. An incomplete
    # installation cannot be imported.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".replace(os.environ[TRACKING_URI], place)
        warn(f"the results were not logged to MLflow at {place}: {reason}")


def _runs(result: RunResult | MatrixResult) -> Iterator[RunResult]:
    if isinstance(result, RunResult):
        yield result
    else:
        yield from (model.run for model in result.models if model.run is not None)


def _log_report(mlflow: Any, report: Mapping[str, Any]) -> None:
    from job.pipeline.report_files import render_files

    with mlflow.start_run(run_name=report["name"]):
        values = list(parameters(report).items())
        for start in range(0, len(values), _MOST_PARAMETERS):
            mlflow.log_params(dict(values[start : start + _MOST_PARAMETERS]))
        mlflow.log_metrics(metrics(report))
        mlflow.set_tag("status", report["status"])
        for name, text in render_files(report).items():
            mlflow.log_text(text, name)


def parameters(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the manifest of a report by dotted key, and the versions of the libraries."""
    versions = {f"version.{name}": version for name, version in report["versions"].items()}
    flat = {**dict(_flat(report["manifest"], "")), **versions}
    return {name: text[:_LONGEST_VALUE] for name, text in flat.items()}


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a report of one model: accuracy in percent, images/s, bytes."""
    found = dict(_accuracies(report))
    for row in report["benchmark"]:
        setting = f"batch{row['batch_size']}.threads{row['threads']}.instances{row['instances']}"
        place = f"{row['isa_cap']}.{setting}"
        found[f"speedup.{place}"] = row["ratio"]
        speeds = {"fp32": row["fp32"], "int8": row["int8"], **row["engines"]}
        for name, speed in speeds.items():
            found[f"{name}.images_per_second.{place}"] = speed["images_per_second"]
            found[f"{name}.p50_ms.{place}"] = speed["latency_ms"]["p50"]
    found |= {f"{name}.bytes": model["bytes"] for name, model in report["models"].items()}
    return found


def _accuracies(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield each measure of table I in percent, and the closeness to FP32 in decibels."""
    if report["accuracy"] is None:
        return
    for row in accuracy_rows(report):
        for measure, score in zip(view_of(report).measures, row.scores, strict=True):
            if score.value is not None:
                yield f"{row.model}.{measure.key}", score.value
    for model, close in report["accuracy"].get("closeness", {}).items():
        yield f"{model}.signal_to_noise_db", close["signal_to_noise_db"]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
