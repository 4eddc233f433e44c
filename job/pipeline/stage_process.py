"""Runs one stage in a process of its own and survives whatever happens to it.

The child (:mod:`job.pipeline.stage_main`) has its own session, so that Ctrl-C reaches only this
process, which asks the child to save its state. The kernel kills the child when this process dies.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job import errors
from job.host import oom_kills
from job.pipeline.crash import explain_crash
from job.process.signals import StopSignals, stopped
from job.stages.stage import Record, Stage, StageOutput

GRACE_SECONDS = 25.0
_POLL_SECONDS = 0.2
_STRAGGLER_SECONDS = 1.0
# A child that has sent its record has nothing left to do but end.
_FAREWELL_SECONDS = 20.0

Handler = Callable[[Mapping[str, Any]], None]
Watch = Callable[[], object]


@dataclass(frozen=True)
class StageTask:
    """What a stage's process is started with.

    Attributes:
        stage: the stage.
        manifest: the resolved manifest.
        base: the folder that its paths are relative to.
        inputs: what the stages in ``stage.needs`` left.
        out: the folder to write to; unfinished work of an earlier run may be in it.
        root: the output folder that ``out`` is in.
        log: the file that receives what the process prints.
        environment: the process's environment, see :func:`environment`.
        inherit: file descriptors that stay open in the process.
        grace_seconds: how long a stage may take to save its state when asked to stop.
        origin: where in S3 its inputs come from, see :func:`job.pipeline.fetch_inputs.as_json`.
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


@dataclass
class StageOutcome:
    """What is known of a stage's process so far.

    Attributes:
        record: the stage's record, once it was sent.
        stopped: the stage says that it saved its state and ended early.
        error: the expected error that it sent.
        exception: the unexpected exception that it died of.
        exit_code: None while it runs; minus the signal's number when one killed it.
        peak_bytes: its peak memory, once it ended.
    """

    record: Record | None = None
    stopped: bool = False
    error: errors.JobError | None = None
    exception: str = ""
    exit_code: int | None = None
    peak_bytes: int = 0


def run_stage(
    task: StageTask, stop: StopSignals, on_event: Handler, watch: Watch | None = None
) -> Record:
    """Run a stage to its end and return its record.

    Args:
        task: what to run.
        stop: where signals to this process are kept; they are passed on to the stage.
        on_event: receives ``progress`` and ``message`` events.
        watch: called a few times a second; what it raises ends the stage at once.

    Raises:
        Stopped: a signal came and the stage ended before its work was done.
        TimeLimitReached: the same, when the job's time was over.
        StageCrashed: the process died, or raised what it should not.
        JobError: whatever the stage raised, as the same class.
    """
    offset = task.log.stat().st_size if task.log.exists() else 0
    killed_before = oom_kills()
    with stop.deferred(), _started(task) as child:
        outcome = child.supervise(stop, on_event, watch)
    if outcome.error is not None:
        raise outcome.error
    if outcome.record is not None:
        return outcome.record
    if stop.received or outcome.stopped:
        signum = stop.received[0] if stop.received else signal.SIGTERM
        raise stopped(signum, f"in stage {task.stage.name}")
    raise explain_crash(
        task.stage.name,
        task.log,
        offset,
        exception=outcome.exception,
        exit_code=outcome.exit_code or 0,
        peak_bytes=outcome.peak_bytes,
        out_of_memory=oom_kills() > killed_before,
        root=task.root,
    )


def function_name(function: Callable[..., Any]) -> str:
    """Return ``module:qualname``, by which another process finds a function.

    Raises:
        ValueError: it is not a module's own function.
    """
    if "<" in function.__qualname__ or function.__module__ == "__main__":
        raise ValueError(f"{function!r} cannot be imported by name; define it in a module")
    return f"{function.__module__}:{function.__qualname__}"


@contextmanager
def _started(task: StageTask) -> Iterator["_Child"]:
    """Start the stage's process; no process of its session is left when the block ends."""
    events, write_end = os.pipe()
    request_file = task.out.parent / f"{task.stage.name}.request.json"
    request = {
        "parent": os.getpid(),
        "events": write_end,
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
    try:
        request_file.write_text(json.dumps(request), encoding="utf-8")
        with task.log.open("ab") as log:
            # -P: a folder called job in the current directory is not this package.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "job.pipeline.stage_main", str(request_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=task.environment,
                pass_fds=(write_end, *task.inherit),
                start_new_session=True,
            )
    except OSError:
        os.close(events)
        raise
    finally:
        os.close(write_end)
    child = _Child(process, events, task.grace_seconds)
    try:
        yield child
    finally:
        child.end()
        request_file.unlink(missing_ok=True)


@dataclass
class _Child:
    """The running process, its pipe and what became of it."""

    process: "subprocess.Popen[bytes]"
    pipe: int
    grace_seconds: float
    outcome: StageOutcome = field(default_factory=StageOutcome)
    deadline: float | None = None
    _signals_seen: int = 0
    _rest: bytes = b""
    _open: bool = True

    def supervise(self, stop: StopSignals, on_event: Handler, watch: Watch | None) -> StageOutcome:
        """Read events, pass signals on and enforce deadlines until the process has ended."""
        os.set_blocking(self.pipe, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.pipe, selectors.EVENT_READ)
            while True:
                ended = self._reap()
                lines = tuple(self._read(selector, 0.0 if ended else _POLL_SECONDS))
                for line in lines:
                    self._take(json.loads(line), on_event)
                if ended and not lines:
                    return self.outcome
                self._attend(stop)
                if watch:
                    watch()

    def end(self) -> None:
        """Kill what is left of the process's session."""
        if self._reap():
            self._wait_for_stragglers()
        self._kill()
        while not self._reap():
            time.sleep(0.01)
        os.close(self.pipe)

    def _read(self, selector: selectors.BaseSelector, seconds: float) -> Iterator[bytes]:
        """Yield the lines that arrived, waiting for the first."""
        if not self._open:
            time.sleep(min(seconds, 0.02))
            return
        if not selector.select(seconds):
            return
        block = os.read(self.pipe, 1 << 16)
        if not block:
            self._open = False
            selector.unregister(self.pipe)
            return
        *lines, self._rest = (self._rest + block).split(b"\n")
        # A block without a line's end still counts as news: the rest is on its way.
        yield from lines or (b"{}",)

    def _take(self, event: Mapping[str, Any], on_event: Handler) -> None:
        """Note what an event says of the stage's end; pass others on."""
        match event.get("event"):
            case "record":
                self.outcome.record = event["record"]
                self.deadline = time.monotonic() + _FAREWELL_SECONDS
            case "stopped":
                self.outcome.stopped = True
            case "crash":
                self.outcome.exception = event["exception"]
            case "error":
                self.outcome.error = _rebuild(event["kind"], event["message"], event["hint"])
            case "progress" | "message":
                on_event(event)

    def _attend(self, stop: StopSignals) -> None:
        """Pass a first signal on; kill at a second Ctrl-C or when patience is over."""
        fresh = stop.received[self._signals_seen :]
        if fresh and not self._signals_seen:
            self._signal(signal.SIGTERM)
            self.deadline = time.monotonic() + self.grace_seconds
        impatient = self._signals_seen + len(fresh) > 1 and signal.SIGINT in fresh
        self._signals_seen += len(fresh)
        if impatient or (self.deadline is not None and time.monotonic() > self.deadline):
            self._kill()

    def _reap(self) -> bool:
        """Return whether the process has ended, noting how."""
        if self.outcome.exit_code is not None:
            return True
        # wait4 and not Popen.poll: it tells the peak memory of this very process.
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.outcome.exit_code = self.process.returncode = os.waitstatus_to_exitcode(status)
        self.outcome.peak_bytes = usage.ru_maxrss * 1024
        return True

    def _wait_for_stragglers(self) -> None:
        """Give the processes that the stage started a moment to end by themselves."""
        deadline = time.monotonic() + _STRAGGLER_SECONDS
        while time.monotonic() < deadline and self._signal_session(0):
            time.sleep(0.02)

    def _signal(self, signum: int) -> None:
        if self.outcome.exit_code is None:
            os.kill(self.process.pid, signum)

    def _kill(self) -> None:
        self._signal_session(signal.SIGKILL)

    def _signal_session(self, signum: int) -> bool:
        """Signal every process of the stage's session that kept its group; False if none did."""
        try:
            os.killpg(self.process.pid, signum)
        except ProcessLookupError:
            return False
        return True


def _rebuild(kind: str, message: str, hint: str) -> errors.JobError:
    """Make the error that a stage raised again, as the same class."""
    found = getattr(errors, kind, errors.JobError)
    if found.__init__ is not errors.JobError.__init__:
        # ManifestError and Stopped are made of other values; the message says it all by now.
        found = errors.UsageError if issubclass(found, errors.UsageError) else errors.JobError
    rebuilt: errors.JobError = found(message, hint)
    return rebuilt
