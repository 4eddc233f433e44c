"""Explains why a stage's process died, from its exit code, its log and the state of the machine."""

import re
import signal
from pathlib import Path

from job.errors import JobError, OutputError, StageCrashed
from job.host import read_host
from job.storage.files import free_bytes

_LAST_LINES = 8
_FATAL = "Fatal Python error"
_TAIL_BYTES = 1 << 16
_NOTHING_FREE_BYTES = 1 << 20
_GIB = 1 << 30
_MEANING = {
    signal.SIGSEGV: "invalid memory access",
    signal.SIGABRT: "a library aborted the process",
    signal.SIGILL: "this CPU does not support an instruction that a library used",
    signal.SIGBUS: "unavailable memory was accessed, often because /dev/shm or a disk is full",
    signal.SIGFPE: "division by zero",
    signal.SIGTERM: "another process sent the signal",
}


def explain_crash(
    stage: str,
    log: Path,
    offset: int,
    *,
    exception: str,
    exit_code: int,
    peak_bytes: int,
    out_of_memory: bool,
    root: Path,
) -> JobError:
    """Return the error for a stage whose process ended without a record.

    Args:
        stage: name of the stage.
        log: the log of its process.
        offset: start of this attempt in the log, in bytes.
        exception: the exception that ended the process, or empty.
        exit_code: exit code of the process; minus the signal's number if a signal killed it.
        peak_bytes: peak memory of the process.
        out_of_memory: whether the kernel killed a process of this control group meanwhile because
            memory ran out.
        root: the output folder.
    """
    see_log = f"See the log: {log}"
    lines = last_lines(log, offset)
    quoted = "".join(f"\n  | {line}" for line in lines)
    if free_bytes(root) < _NOTHING_FREE_BYTES:
        return OutputError(
            f"stage {stage} failed, and the disk of {root} is full{quoted}",
            f"Free some space, then run the same command again. {see_log}",
        )
    if exit_code == -signal.SIGKILL:
        return StageCrashed(
            f"stage {stage} was killed by SIGKILL{quoted}", _memory(peak_bytes, out_of_memory)
        )
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        meaning = _MEANING.get(signal.Signals(-exit_code), "")
        reason = f"{name}: {meaning}" if meaning else name
        return StageCrashed(f"stage {stage} was killed by {reason}{quoted}", see_log)
    reason = exception or f"its process exited with code {exit_code} without a result"
    return StageCrashed(f"stage {stage} failed: {reason}{quoted}", see_log)


def last_lines(log: Path, offset: int) -> tuple[str, ...]:
    """Return the last non-empty lines of a log after ``offset`` (in bytes)."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    lines = [re.sub(r"[^\x20-\x7e\u00a0-\uffff]", " ", line).rstrip() for line in text.splitlines()]
    # The Python frames after a fatal signal hide the library's own message before them.
    fatal = next((at for at, line in enumerate(lines) if line.startswith(_FATAL)), len(lines))
    return tuple(line for line in lines[: fatal + 1] if line)[-_LAST_LINES:]


def _memory(peak_bytes: int, out_of_memory: bool) -> str:
    """Return the hint after SIGKILL, which the kernel sends when memory runs out."""
    host = read_host()
    peak = f"peak memory {peak_bytes / _GIB:.1f} GiB of {host.memory_bytes / _GIB:.1f} GiB"
    if out_of_memory or peak_bytes > host.memory_bytes * 0.8:
        return (
            f"Memory probably ran out ({peak}). Give the job more memory, or lower "
            "train.batch_size, baseline.train.batch_size or data.workers."
        )
    return f"Another process killed it, or memory ran out ({peak}). Run the same command again."
