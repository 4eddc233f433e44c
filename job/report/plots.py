"""The plots of a report by name, each as inline SVG."""

from collections.abc import Mapping
from typing import Any

from job.report.matrix.ratio_plot import ratios
from job.report.render import svg
from job.report.run import plots as run
from job.report.run.breakdown_plot import breakdown
from job.report.run.curves import curves

PICTURES = {
    "accuracy": run.accuracy,
    "throughput": run.throughput,
    "latency": run.latency,
    "sizes": run.sizes,
    "training": run.training,
    "breakdown": breakdown,
    "ratios": ratios,
    "curves": curves,
}


def draw(name: str, report: Mapping[str, Any]) -> tuple[str, str]:
    """Draw one plot of a valid report.

    Args:
        name: a key of ``PICTURES``; a matrix has ``ratios`` only.
        report: the report.

    Returns:
        The ``<svg>`` element and its caption, plain text.
    """
    figure, caption = PICTURES[name](report)
    return svg.inline(figure, name, caption), caption
