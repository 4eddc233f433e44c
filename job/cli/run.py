"""``job run --dry-run``: print a plan."""

from typing import TYPE_CHECKING

from job.api.execution import RunOptions, request_of
from job.cli.results import print_plan, print_plans
from job.host import read_host
from job.manifest import Manifest
from job.pipeline import matrix, merge
from job.pipeline import run as pipeline
from job.pipeline.plan import check_inputs

if TYPE_CHECKING:
    from job.pipeline.output_location import Location


def print_plan_of(
    manifest: Manifest, output: "Location", options: RunOptions, *, as_json: bool
) -> None:
    """Print what a run would do.

    Raises:
        DataError: an input of the run is missing.
    """
    request = request_of(read_host(), output, options)
    if options.index is not None:
        name, manifest = merge.model_at(manifest, options.index)
        request = request.for_model(name)
    if manifest.matrix:
        plans = matrix.plan(manifest, request)
        print_plans(plans, as_json=as_json)
        check_inputs(matrix.flat(plans), manifest.base)
        return
    planned = pipeline.plan(manifest, request)
    print_plan(planned, as_json=as_json)
    check_inputs(planned, manifest.base)
