"""The work of every rank except rank 0: wait for rank 0, train with it, exit with its result.

These ranks neither lock nor write the output. Each works in a temporary folder. If the training
fails, the folder is kept, because it contains the log.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from job.distributed.control import Participant
from job.distributed.group import Rendezvous
from job.errors import DONE, JobError, PeerLost, RankZeroEnded, Stopped
from job.host import read_host
from job.manifest import Manifest
from job.pipeline.fetch_inputs import as_json
from job.pipeline.shards import roomy_folder
from job.pipeline.stage_process import StageTask, run_stage
from job.process.environment import environment
from job.process.signals import StopSignals
from job.stages.stage import Stage
from job.storage.local import PARTIALS
from job.ui.protocol import StageEvents, Ui

_POLL_SECONDS = 0.2
_MESSAGE_SECONDS = 60.0


def train_with_rank_zero(
    manifest: Manifest, participant: Participant, *, stages: Sequence[Stage], ui: Ui
) -> None:
    """Train whenever rank 0 starts a training, until rank 0 has ended successfully.

    Args:
        manifest: a valid manifest, the same as on rank 0.
        participant: the connection to rank 0.
        stages: all stages of the manifest.
        ui: shows progress.

    Raises:
        RankZeroEnded: rank 0 failed; the exit code is the exit code of rank 0.
        PeerLost: the connection to rank 0 is closed.
        Stopped: a signal stopped this process.
        JobError: the training raised it; rank 0 has received its message.
    """
    stage = next(stage.follower_stage for stage in stages if stage.follower_stage)
    with StopSignals() as stop:
        try:
            while True:
                rendezvous = _wait_for_training(participant, stop, ui)
                _train(stage, manifest, rendezvous, participant, stop, ui)
        except RankZeroEnded as error:
            if error.exit_code != DONE:
                raise


def _wait_for_training(participant: Participant, stop: StopSignals, ui: Ui) -> Rendezvous:
    """Wait until rank 0 starts a training; show a message once a minute."""
    name, started, last_message = participant.group.name, time.monotonic(), -_MESSAGE_SECONDS
    while True:
        stop.check()
        rendezvous = participant.poll(_POLL_SECONDS)
        if rendezvous is not None:
            return rendezvous
        waited = time.monotonic() - started
        if waited > last_message + _MESSAGE_SECONDS:
            ui.message(name, f"waiting for rank 0 ({waited / 60:.0f} min)")
            last_message = waited


def _train(
    stage: Stage,
    manifest: Manifest,
    rendezvous: Rendezvous,
    participant: Participant,
    stop: StopSignals,
    ui: Ui,
) -> None:
    """Train together with rank 0 until the training is finished or stopped."""
    name = participant.group.name

    def watch() -> None:
        # After a stop signal, all ranks stop after the same step.
        if not stop.received:
            participant.poll()

    with _folder(name) as root:
        task = _task(stage, manifest, rendezvous, root)
        try:
            run_stage(task, stop, StageEvents(ui, name).show, watch)
        except PeerLost:
            participant.wait_for_reason()
            raise
        except Stopped:
            # Rank 0 needs this connection until it has saved the state of all ranks.
            with stop.deferred():
                participant.wait_for_reason(manifest.run.grace_seconds)
            raise
        except RankZeroEnded:
            raise
        except JobError as error:
            participant.report_failure(error)
            raise


def _task(stage: Stage, manifest: Manifest, rendezvous: Rendezvous, root: Path) -> StageTask:
    out = root / PARTIALS / stage.name
    out.mkdir(parents=True)
    threads = rendezvous.threads(read_host().usable_cores)
    return StageTask(
        stage=stage,
        manifest=manifest.resolved,
        base=manifest.base,
        inputs={},
        out=out,
        root=root,
        log=root / f"{stage.name}.log",
        environment=environment(threads) | rendezvous.variables(),
        origin=as_json(manifest),
        grace_seconds=manifest.run.grace_seconds,
    )


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """Create a folder for this rank's work; keep it only if the work fails."""
    prefix = f"job-{name.replace(' ', '-')}-{os.getpid()}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=roomy_folder()))
    try:
        yield folder
    except (RankZeroEnded, PeerLost, Stopped):
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
