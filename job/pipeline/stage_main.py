"""The process that runs one stage; :mod:`job.pipeline.stage_process` starts it.

Standard output and error are the stage's log.
"""

import importlib
import json
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from job.process.json_channel import JsonChannel, run_child
from job.storage.files import output_errors

_PROGRESS_SECONDS = 0.1


class ChannelEvents:
    """Sends a stage's events to the parent process.

    Args:
        channel: the connection to the parent.
    """

    def __init__(self, channel: JsonChannel) -> None:
        self._channel = channel
        self._sent_at: dict[str, float] = {}
        self._stop_requested = False
        self.stop_seen = False
        self._install_handler()

    def progress(self, what: str, done: int, total: int, unit: str, note: str = "") -> None:
        """Report progress, at most ten times a second for each kind of work."""
        now = time.monotonic()
        if done < total and now - self._sent_at.get(what, -1.0) < _PROGRESS_SECONDS:
            return
        self._sent_at[what] = now
        self.send("progress", what=what, done=done, total=total, unit=unit, note=note)

    def message(self, text: str, level: str = "info") -> None:
        """Send one line of text to the user."""
        self.send("message", text=text, level=level)

    @property
    def stopping(self) -> bool:
        """True once the parent asked the stage to stop."""
        self._install_handler()
        self.stop_seen = self.stop_seen or self._stop_requested
        return self._stop_requested

    def send(self, event: str, **values: Any) -> None:
        """Send one event."""
        self._channel.send(event=event, **values)

    def _install_handler(self) -> None:
        # Importing Paddle replaces this handler with one that aborts, unnoticed by Python.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._stop_requested = True


def resolve(name: str) -> Callable[..., Any]:
    """Return the function called ``module:qualname``."""
    module, _, qualname = name.partition(":")
    value: Any = importlib.import_module(module)
    for part in qualname.split("."):
        value = getattr(value, part)
    function: Callable[..., Any] = value
    return function


def run(request: Mapping[str, Any], channel: JsonChannel) -> None:
    """Run the requested stage; send its record, or that it stopped early."""
    events = ChannelEvents(channel)
    # Imported after the handler of SIGTERM is installed.
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
        # NaN would make the published record invalid JSON.
        json.dumps(record, allow_nan=False)
        events.send("record", record=record)


if __name__ == "__main__":
    run_child(run)
