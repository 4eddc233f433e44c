"""Scores one part of the test split, while other machines score the other parts."""

import tempfile
from pathlib import Path

from job.errors import JobError
from job.host import read_host
from job.manifest import Manifest
from job.pipeline.output_location import STORAGE, open_output, open_read_only
from job.pipeline.request import RunRequest
from job.pipeline.run import RunResult, keep_unfinished, limit_seconds, planner_for
from job.pipeline.shards import place_of_part, roomy_folder, what_it_needs
from job.pipeline.stage_runner import StageRunner
from job.process.signals import StopSignals
from job.ui.protocol import StageEvents, Ui


def run_shard(manifest: Manifest, number: int, request: RunRequest, ui: Ui) -> RunResult:
    """Run one part of the stage that can be split.

    Args:
        manifest: the valid manifest of the whole run.
        number: the part, from 0.
        request: ``output`` is the output of the whole run, which contains the earlier stages.
        ui: shows progress.

    Raises:
        UsageError: the part does not exist.
        DataError: the whole run has not finished a stage that the part reads.
        JobError: as for :func:`job.pipeline.run.run`.
    """
    stages = request.stages_for(manifest)
    shard = next(stage.shard for stage in stages if stage.shard)
    output_dirs = {stage.name: stage.output_dir for stage in stages}
    location, host = place_of_part(request.output, number), read_host()
    with tempfile.TemporaryDirectory(prefix="job-", dir=roomy_folder()) as scratch:
        whole_run = open_read_only(request.output, manifest, Path(scratch))
        inputs, digests = what_it_needs(shard, number, manifest, whole_run, output_dirs)
        folder = open_output(location, manifest, StageEvents(ui, STORAGE).warn)
        folder.check_ours([shard.output_dir])
        planner = planner_for(manifest, (shard,), folder, host, request)
        with StopSignals(limit_seconds(manifest)) as stop, folder.locked() as lock:
            folder.recover([(shard.name, shard.output_dir)])
            runner = StageRunner(planner, ui, stop, lock, location)
            runner.outputs, runner.digests = inputs, digests
            try:
                folder.keep_manifest(manifest.resolved)
                runner.run_or_reuse(shard)
                folder.sync(stop, manifest.run.grace_seconds)
            except JobError:
                keep_unfinished(folder, stop, manifest, ui)
                raise
            finally:
                folder.save_digests()
    return RunResult(location, tuple(runner.rows), None)
