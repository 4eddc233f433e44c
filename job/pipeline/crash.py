"""Explains why a stage's process ended, from exit code, log, memory and free disk space."""

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
    signal.SIGABRT: "the process called abort, usually in a library",
    signal.SIGILL: "this CPU lacks an instruction that a library used",
    signal.SIGBUS: "memory could not be mapped, often because /dev/shm or a disk is full",
    signal.SIGFPE: "division by zero",
    signal.SIGTERM: "sent by another process",
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
    """Return the error for a stage that ended without a record.

    Args:
        stage: the name of the stage.
        log: the file that contains the output of the stage's process.
        offset: position in the log, in bytes, where this attempt begins.
        exception: class and message of the exception that ended the stage, or empty.
        exit_code: exit code of the process; minus the signal's number if a signal killed it.
        peak_bytes: peak memory of the process.
        out_of_memory: whether the kernel killed a process of this container for lack of memory
            during the stage.
        root: the output folder.
    """
    where = f"Complete log: {log}"
    lines = last_lines(log, offset)
    quoted = "".join(f"\n  | {line}" for line in lines)
    if free_bytes(root) < _NOTHING_FREE_BYTES:
        return OutputError(
            f"stage {stage} failed, and the disk that contains {root} is full{quoted}",
            f"Free disk space and run the same command again. {where}",
        )
    if exit_code == -signal.SIGKILL:
        return StageCrashed(
            f"stage {stage} was killed by SIGKILL{quoted}", _memory(peak_bytes, out_of_memory)
        )
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        meaning = _MEANING.get(signal.Signals(-exit_code), "")
        reason = f"{name}: {meaning}" if meaning else name
        return StageCrashed(f"stage {stage} was killed by {reason}{quoted}", where)
    reason = exception or f"its process exited with code {exit_code} without a result"
    return StageCrashed(f"stage {stage} failed: {reason}{quoted}", where)


def last_lines(log: Path, offset: int) -> tuple[str, ...]:
    """Return the last nonempty lines of a log, at most 8, from ``offset`` in bytes on."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    lines = [re.sub(r"[^\x20-\x7e\u00a0-\uffff]", " ", line).rstrip() for line in text.splitlines()]
    # Python's traceback at a fatal signal is less useful than the library's output before it.
    fatal = next((at for at, line in enumerate(lines) if line.startswith(_FATAL)), len(lines))
    return tuple(line for line in lines[: fatal + 1] if line)[-_LAST_LINES:]


def _memory(peak_bytes: int, out_of_memory: bool) -> str:
    """Return the hint after SIGKILL, which the kernel sends if memory runs out."""
    host = read_host()
    peak = f"Peak memory was {peak_bytes / _GIB:.1f} GiB of {host.memory_bytes / _GIB:.1f} GiB"
    if out_of_memory or peak_bytes > host.memory_bytes * 0.8:
        return (
            f"Memory {'ran out' if out_of_memory else 'probably ran out'}. {peak}. Give the job "
            "more memory, or lower train.batch_size, baseline.train.batch_size or data.workers."
        )
    return (
        f"Another process sent the signal, or memory ran out. {peak}. Run the same command again."
    )
