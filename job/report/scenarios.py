"""The fastest configuration of each scenario, over all models and engines of a run.

SingleStream and Offline are named as in MLPerf Inference:
https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc
MLPerf ranks SingleStream by p90. Here p50 ranks it, because p90 needs more calls than slow networks
get. MLPerf's scenario Server sends queries at random times. The benchmark does not: its parallel
instances always run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

SINGLE_STREAM, OFFLINE = "single_stream", "offline"
PARALLEL_INSTANCES = "parallel_instances"


def fastest(measured: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the fastest configuration by scenario; a scenario that was not measured is missing.

    Args:
        measured: see :func:`job.report.deploy.configurations`.
    """
    single = [each for each in measured if each["batch_size"] == 1]
    parallel = [each for each in single if each["instances"] > 1]
    alone = [each for each in single if each["instances"] == 1]
    found: dict[str, Mapping[str, Any]] = {}
    if alone:
        found[SINGLE_STREAM] = min(alone, key=lambda each: each["p50_ms"])
    if measured:
        found[OFFLINE] = max(measured, key=lambda each: each["images_per_second"])
    if parallel:
        found[PARALLEL_INSTANCES] = max(parallel, key=lambda each: each["images_per_second"])
    return found
