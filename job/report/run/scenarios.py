"""The table of the fastest configuration of each scenario."""

from collections.abc import Mapping
from typing import Any

from job import text_format
from job.report.deploy import configurations
from job.report.render.blocks import Grid, figures, words
from job.report.scenarios import OFFLINE, PARALLEL_INSTANCES, SINGLE_STREAM, fastest
from job.report.tables import INT8_ENGINE_NAMES

TITLES: Mapping[str, str] = {
    SINGLE_STREAM: "SingleStream",
    OFFLINE: "Offline",
    PARALLEL_INSTANCES: "Parallel instances",
}
NOTE = (
    "The fastest of all measured models, engines and settings. SingleStream: one image at a time, "
    "shortest p50. Offline: most images/s at any batch size, threads and instances. Parallel "
    "instances: most images/s of several processes, each with one image at a time, as in a server."
)


def scenarios_grid(report: Mapping[str, Any]) -> Grid:
    """Return the table of the fastest configurations of a run."""
    every = [each for name in report["models"] for each in configurations(report, name)]
    rows = tuple(
        (
            TITLES[scenario],
            f"{each['folder']}/",
            INT8_ENGINE_NAMES[each["engine"]],
            str(each["batch_size"]),
            str(each["threads"]),
            str(each["instances"]),
            f"{text_format.significant(each['images_per_second'])}"
            f"{'' if each['stable'] else text_format.UNSTABLE}",
            *(_milliseconds(each[f"{name}_ms"]) for name in ("p50", "p90", "p99")),
        )
        for scenario, each in fastest(every).items()
    )
    columns = (
        *words("Scenario", "Folder", "Engine"),
        *figures("Batch", "Threads", "Instances", "images/s", "p50 ms", "p90 ms", "p99 ms"),
    )
    return Grid("Fastest configuration by scenario", columns, rows, NOTE)


def _milliseconds(value: float | None) -> str:
    return text_format.DASH if value is None else text_format.significant(value)
