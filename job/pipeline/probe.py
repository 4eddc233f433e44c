"""Measures the speeds of a network and of decoding on this machine, in a process of its own."""

import tempfile
from pathlib import Path

from job.host import Host
from job.manifest import Manifest
from job.pipeline.estimate import Speeds
from job.pipeline.fetch_inputs import as_json
from job.pipeline.stage_process import StageTask, run_stage
from job.process.environment import environment
from job.process.signals import StopSignals
from job.stages.probe import STAGE


def probe(manifest: Manifest, host: Host) -> Speeds:
    """Measure the speeds for a manifest of one model. Nothing is written to the output.

    Raises:
        JobError: the network cannot be built or the data cannot be read.
        Stopped: a signal stopped the measurement.
    """
    with tempfile.TemporaryDirectory(prefix="job-") as text, StopSignals() as stop:
        scratch = Path(text)
        out = scratch / "output" / "probe"
        out.mkdir(parents=True)
        task = StageTask(
            stage=STAGE,
            manifest=manifest.resolved,
            base=manifest.base,
            inputs={},
            out=out,
            root=scratch,
            log=scratch / "probe.log",
            environment=environment(host.usable_cores),
            origin=as_json(manifest),
        )
        found = run_stage(task, stop, lambda _: None)
    return Speeds(
        found["forward"], found["train"], found["decode"] or 0.0, found["layers"], measured=True
    )
