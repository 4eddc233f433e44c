"""The process that one stage runs in: ``python -m job.pipeline.stage_main REQUEST.json``.

Standard output and error are the stage's log. News for the parent, the record and expected errors
go as JSON lines through a pipe that the parent opened.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from job.errors import JobError
from job.process.parent_death import die_with_parent
from job.storage.files import output_errors

_PROGRESS_SECONDS = 0.1


class PipeEvents:
    """Sends a stage's news to the parent.

    Args:
        descriptor: the pipe's end to write to.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()
        self._sent: dict[str, float] = {}
        self._asked = False
        self.stop_seen = False
        self._listen()

    def progress(self, what: str, done: int, total: int, unit: str, note: str = "") -> None:
        """Report work done so far; what comes too fast for a reader is dropped."""
        now = time.monotonic()
        if done < total and now - self._sent.get(what, -1.0) < _PROGRESS_SECONDS:
            return
        self._sent[what] = now
        self.send("progress", what=what, done=done, total=total, unit=unit, note=note)

    def message(self, text: str, level: str = "info") -> None:
        """Say one line."""
        self.send("message", text=text, level=level)

    @property
    def stopping(self) -> bool:
        """True once the job was asked to stop."""
        self._listen()
        self.stop_seen = self.stop_seen or self._asked
        return self._asked

    def send(self, event: str, **values: Any) -> None:
        """Write one event.

        Raises:
            TypeError, ValueError: a value has no place in JSON.
        """
        line = json.dumps({"event": event, **values}, allow_nan=False)
        with self._lock:
            self._pipe.write(f"{line}\n")

    def _listen(self) -> None:
        # Importing paddle puts its own handler, which aborts, in our place without Python knowing.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._asked = True


def resolve(name: str) -> Callable[..., Any]:
    """Return the function called ``module:qualname``."""
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    function: Callable[..., Any] = found
    return function


def run(request: Mapping[str, Any], events: PipeEvents) -> None:
    """Do what was asked and send the record, or that the stage was stopped before its end."""
    from job.manifest import parse
    from job.pipeline.fetch_inputs import from_json
    from job.stages.stage import StageOutput

    parsed = parse(request["manifest"], "the resolved manifest", Path(request["base"]))
    manifest = from_json(parsed, request["origin"])
    inputs = {
        name: StageOutput(path=Path(entry["path"]), record=entry["record"])
        for name, entry in request["inputs"].items()
    }
    function = resolve(request["function"])
    with output_errors(Path(request["root"])):
        record = function(manifest, inputs, Path(request["out"]), events)
    if events.stop_seen or record is None:
        events.send("stopped")
    else:
        events.send("record", record=record)


def main() -> int:
    """Run the stage that the request names; see the module's docstring."""
    request = json.loads(Path(sys.argv[1]).read_bytes())
    die_with_parent(request["parent"])
    events = PipeEvents(request["events"])
    usual_hook = sys.excepthook

    def report_crash(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        usual_hook(kind, error, trace)
        events.send("crash", exception=f"{kind.__name__}: {error}")

    sys.excepthook = report_crash
    try:
        run(request, events)
    except JobError as error:
        events.send("error", kind=type(error).__name__, message=error.message, hint=error.hint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
