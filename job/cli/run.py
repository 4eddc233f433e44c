"""``job run --dry-run``: print a plan."""

from typing import TYPE_CHECKING

from job.api.execution import RunOptions, request_of
from job.cli.plan import print_plan, print_plans
from job.cli.times import Counted, times_of
from job.host import read_host
from job.manifest import Manifest, entries
from job.manifest.spec import DataSpec
from job.pipeline import matrix, merge
from job.pipeline import run as pipeline
from job.pipeline.plan import check_inputs

if TYPE_CHECKING:
    from job.pipeline.output_location import Location


def print_plan_of(
    manifest: Manifest, output: "Location", options: RunOptions, *, probe: bool, as_json: bool
) -> None:
    """Print what a run would do, and how long it takes.

    Args:
        manifest: a valid manifest.
        output: the folder or S3 prefix to write to.
        options: which model and stages to run.
        probe: measure this machine for the times.
        as_json: print one JSON object per stage.

    Raises:
        DataError: an input of the run is missing.
    """
    request = request_of(read_host(), output, options)
    if options.index is not None:
        name, manifest = merge.model_at(manifest, options.index)
        request = request.for_model(name)
    if manifest.matrix:
        plans = matrix.plan(manifest, request)
        singles = entries(manifest)
        counted: dict[DataSpec, Counted] = {}
        times = [
            times_of(single, planned, probe, counted)
            for single, (_, planned) in zip(singles, plans, strict=True)
        ]
        print_plans(plans, times, as_json=as_json)
        check_inputs(matrix.flat(plans), manifest.base)
        return
    planned = pipeline.plan(manifest, request)
    print_plan(planned, times_of(manifest, planned, probe), as_json=as_json)
    check_inputs(planned, manifest.base)
