"""Runs one stage in a child process (:mod:`job.pipeline.stage_main`) and supervises it.

The child runs in its own session, so that Ctrl-C sends a signal only to the parent process. The
parent then asks the child to save its state.
"""

import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.errors import JobError
from job.host import oom_kills
from job.pipeline.crash import explain_crash
from job.process.json_channel import ChildProcess
from job.process.signals import StopSignals, stopped
from job.stages.stage import Record, Stage, StageOutput

GRACE_SECONDS = 25.0
_POLL_SECONDS = 0.2
# A child that has sent its record has no work left.
_EXIT_SECONDS = 20.0

Handler = Callable[[Mapping[str, Any]], None]
Watch = Callable[[], object]


@dataclass(frozen=True)
class StageTask:
    """A stage to run, with everything that its process needs.

    Attributes:
        stage: the stage.
        manifest: the resolved manifest.
        base: the folder that the manifest's paths are relative to.
        inputs: outputs of the stages in ``stage.needs``.
        out: the folder to write to; it may contain unfinished work of an earlier run.
        root: the output folder that contains ``out``.
        log: the file that standard output and error of the process are appended to.
        environment: environment variables, see :func:`job.process.environment.environment`.
        inherit: file descriptors that stay open in the process.
        grace_seconds: time to save the stage's state after a stop signal.
        origin: S3 locations of the inputs, see :func:`job.pipeline.fetch_inputs.as_json`.
    """

    stage: Stage
    manifest: Mapping[str, Any]
    base: Path
    inputs: Mapping[str, StageOutput]
    out: Path
    root: Path
    log: Path
    environment: Mapping[str, str]
    inherit: tuple[int, ...] = ()
    grace_seconds: float = GRACE_SECONDS
    origin: Mapping[str, Any] = field(default_factory=dict)


def run_stage(
    task: StageTask, stop: StopSignals, on_event: Handler, watch: Watch | None = None
) -> Record:
    """Run a stage to its end and return its record.

    Args:
        task: the stage and its inputs.
        stop: collects signals to this process; the first one is passed on to the stage.
        on_event: receives ``progress`` and ``message`` events.
        watch: called at least every 0.2 s; an exception that it raises kills the stage.

    Raises:
        Stopped: a signal stopped the stage before its work was done.
        TimeLimitReached: the job's time limit stopped the stage.
        StageCrashed: the process ended without a result, or raised an exception that is not a
            JobError.
        JobError: the stage raised it; the class is the same, or a base class of it.
    """
    offset = task.log.stat().st_size if task.log.exists() else 0
    oom_kills_before = oom_kills()
    with stop.deferred(), task.log.open("ab") as log:
        child = ChildProcess(
            "job.pipeline.stage_main",
            _request(task),
            environment=task.environment,
            log=log,
            inherit=task.inherit,
            own_session=True,
        )
        supervisor = _Supervisor(child, task.grace_seconds, on_event)
        with closing(child):
            supervisor.run(stop, watch)
    if supervisor.error is not None:
        raise supervisor.error
    if supervisor.record is not None:
        return supervisor.record
    if stop.received or supervisor.stopped:
        signum = stop.received[0] if stop.received else signal.SIGTERM
        raise stopped(signum, f"in stage {task.stage.name}")
    raise explain_crash(
        task.stage.name,
        task.log,
        offset,
        exception=child.exception,
        exit_code=child.wait(),
        peak_bytes=child.peak_bytes,
        out_of_memory=oom_kills() > oom_kills_before,
        root=task.root,
    )


def function_name(function: Callable[..., Any]) -> str:
    """Return ``module:qualname``, from which another process can import a function.

    Raises:
        ValueError: the function is not defined at the top of a module.
    """
    if "<" in function.__qualname__ or function.__module__ == "__main__":
        raise ValueError(f"{function!r} cannot be imported by name; define it in a module")
    return f"{function.__module__}:{function.__qualname__}"


def _request(task: StageTask) -> dict[str, Any]:
    """Return the JSON object that :mod:`job.pipeline.stage_main` reads."""
    return {
        "function": function_name(task.stage.run),
        "manifest": task.manifest,
        "base": str(task.base),
        "origin": task.origin,
        "inputs": {
            name: {"path": str(output.path), "record": output.record}
            for name, output in task.inputs.items()
        },
        "out": str(task.out),
        "root": str(task.root),
    }


@dataclass
class _Supervisor:
    """Reads a stage's events, passes signals on and enforces deadlines.

    Attributes:
        child: the stage's process.
        grace_seconds: see :class:`StageTask`.
        on_event: receives progress and messages.
        record: the stage's record, once received.
        stopped: whether the stage reported that it saved its state and stopped early.
        error: the expected error that the stage raised.
    """

    child: ChildProcess
    grace_seconds: float
    on_event: Handler
    record: Record | None = None
    stopped: bool = False
    error: JobError | None = None
    _deadline: float = math.inf
    _signals_seen: int = 0

    def run(self, stop: StopSignals, watch: Watch | None) -> None:
        """Supervise until the process has ended and all of its events are read."""
        while True:
            ended = self.child.poll() is not None
            try:
                event = self.child.receive(0.0 if ended else _POLL_SECONDS)
            except JobError as error:
                self.error = error
                continue
            if event is not None:
                self._handle(event)
            elif ended:
                return
            elif self.child.channel.closed:
                time.sleep(0.02)
            self._enforce(stop)
            if watch:
                watch()

    def _handle(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "record":
                self.record = event["record"]
                self._deadline = time.monotonic() + _EXIT_SECONDS
            case "stopped":
                self.stopped = True
            case "progress" | "message":
                self.on_event(event)

    def _enforce(self, stop: StopSignals) -> None:
        """Pass the first signal on; kill after a second Ctrl-C or when a deadline has passed."""
        new_signals = stop.received[self._signals_seen :]
        if new_signals and not self._signals_seen:
            self.child.signal(signal.SIGTERM)
            self._deadline = time.monotonic() + self.grace_seconds
        self._signals_seen += len(new_signals)
        interrupted_again = self._signals_seen > 1 and signal.SIGINT in new_signals
        if interrupted_again or time.monotonic() > self._deadline:
            self.child.kill()
