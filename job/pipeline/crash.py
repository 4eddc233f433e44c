"""Says why a stage's process died, as far as can be known from outside."""

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
    signal.SIGSEGV: "it used memory that is not its own",
    signal.SIGABRT: "a library gave up",
    signal.SIGILL: "this CPU does not know an instruction that a library used",
    signal.SIGBUS: "it touched memory that could not be had, often /dev/shm or a disk that is full",
    signal.SIGFPE: "it divided by zero",
    signal.SIGTERM: "another process ended it",
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
        stage: its name.
        log: what its process printed.
        offset: where in the log this attempt begins, in bytes.
        exception: the exception that ended it, or empty.
        exit_code: the process's; minus the signal's number when one killed it.
        peak_bytes: the process's peak memory.
        out_of_memory: the kernel killed a process of this control group meanwhile.
        root: the output folder.
    """
    where = f"The whole log: {log}"
    lines = last_lines(log, offset)
    quoted = "".join(f"\n  | {line}" for line in lines)
    if free_bytes(root) < _NOTHING_FREE_BYTES:
        return OutputError(
            f"stage {stage} failed and the disk of {root} is full{quoted}",
            f"Free some space, then run the same command again. {where}",
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
    reason = exception or f"its process ended with code {exit_code} and without a result"
    return StageCrashed(f"stage {stage} failed: {reason}{quoted}", where)


def last_lines(log: Path, offset: int) -> tuple[str, ...]:
    """Return the last lines of a log from ``offset`` on that hold anything."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    lines = [re.sub(r"[^\x20-\x7e\u00a0-\uffff]", " ", line).rstrip() for line in text.splitlines()]
    # Python's frames at a fatal signal say less than what the library said before it died.
    fatal = next((at for at, line in enumerate(lines) if line.startswith(_FATAL)), len(lines))
    return tuple(line for line in lines[: fatal + 1] if line)[-_LAST_LINES:]


def _memory(peak_bytes: int, out_of_memory: bool) -> str:
    """Return the next step after SIGKILL, which the kernel sends when memory runs out."""
    host = read_host()
    figures = (
        f"its peak memory was {peak_bytes / _GIB:.1f} GiB of {host.memory_bytes / _GIB:.1f} GiB"
    )
    if out_of_memory or peak_bytes > host.memory_bytes * 0.8:
        return (
            f"The kernel kills when memory runs out: {figures}. Give the job more memory, or lower "
            "train.batch_size, baseline.train.batch_size or data.workers."
        )
    return f"Somebody killed it, or memory ran out: {figures}. Run the same command again."
