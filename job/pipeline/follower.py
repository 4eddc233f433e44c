"""What every rank but 0 does: waits for rank 0, trains beside it, and ends as it ends.

It neither locks nor writes the output. It works in a folder of its own, which stays, with the log
in it, when the work fails.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from job.distributed.control import Participant
from job.distributed.group import Rendezvous
from job.errors import DONE, JobError, LeaderEnded, PeerLost, Stopped
from job.host import read_host
from job.manifest import Manifest
from job.pipeline.fetch_inputs import as_json
from job.pipeline.shards import roomy_folder
from job.pipeline.stage_process import StageTask, run_stage
from job.process.environment import environment
from job.process.signals import StopSignals
from job.stages.stage import Stage
from job.ui.protocol import Ui

_POLL_SECONDS = 0.2
_NEWS_SECONDS = 60.0


def follow(manifest: Manifest, follower: Participant, *, stages: Sequence[Stage], ui: Ui) -> None:
    """Do this rank's share, until rank 0 has ended well.

    Args:
        manifest: the valid manifest, the same as rank 0's.
        follower: connected to rank 0.
        stages: those of the manifest.
        ui: is told of everything.

    Raises:
        LeaderEnded: rank 0 ended before its work was done; the exit code is its.
        PeerLost: rank 0 is gone.
        Stopped: a signal came.
        JobError: as the training raises it; rank 0 is told.
    """
    stage = next(stage.follower_stage for stage in stages if stage.follower_stage)
    with StopSignals() as stop:
        try:
            while True:
                meeting = _called(follower, stop, ui)
                _train(stage, manifest, meeting, follower, stop, ui)
        except LeaderEnded as error:
            if error.exit_code != DONE:
                raise


def _called(follower: Participant, stop: StopSignals, ui: Ui) -> Rendezvous:
    """Wait until rank 0 calls to a meeting, and say so now and then."""
    name, begun, told = follower.group.name, time.monotonic(), -_NEWS_SECONDS
    while True:
        stop.check()
        meeting = follower.attend(_POLL_SECONDS)
        if meeting is not None:
            return meeting
        waited = time.monotonic() - begun
        if waited > told + _NEWS_SECONDS:
            ui.message(name, f"waiting for rank 0, {waited / 60:.0f} min so far")
            told = waited


def _train(
    stage: Stage,
    manifest: Manifest,
    meeting: Rendezvous,
    follower: Participant,
    stop: StopSignals,
    ui: Ui,
) -> None:
    """Train beside rank 0, to the end or until all are asked to stop."""
    name = follower.group.name

    def show(event: Mapping[str, Any]) -> None:
        if event["event"] == "message":
            ui.message(name, event["text"], event["level"])
        else:
            ui.progress(
                name, event["what"], event["done"], event["total"], event["unit"], event["note"]
            )

    def watch() -> None:
        # Once asked to stop, all stop after the same step.
        if not stop.received:
            follower.attend()

    with _folder(name) as root:
        task = _task(stage, manifest, meeting, root)
        try:
            run_stage(task, stop, show, watch)
        except PeerLost:
            follower.ask_why()
            raise
        except Stopped:
            # Rank 0 saves the state of all: it must not find this process gone meanwhile.
            with stop.deferred():
                follower.ask_why(manifest.run.grace_seconds)
            raise
        except LeaderEnded:
            raise
        except JobError as error:
            follower.tell_failure(error)
            raise


def _task(stage: Stage, manifest: Manifest, meeting: Rendezvous, root: Path) -> StageTask:
    out = root / ".partial" / stage.name
    out.mkdir(parents=True)
    return StageTask(
        stage=stage,
        manifest=manifest.resolved,
        base=manifest.base,
        inputs={},
        out=out,
        root=root,
        log=root / f"{stage.name}.log",
        environment=environment(meeting.threads(read_host().usable_cores)) | meeting.variables(),
        origin=as_json(manifest),
        grace_seconds=manifest.run.grace_seconds,
    )


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """Make a folder for this rank's work, which stays if the work fails."""
    prefix = f"job-{name.replace(' ', '-')}-{os.getpid()}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=roomy_folder()))
    try:
        yield folder
    except (LeaderEnded, PeerLost, Stopped):
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
