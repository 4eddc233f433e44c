"""The one exception tree, and the exit codes.

    JobError              1  anything else
    ├── UsageError        2  the command line is wrong
    │   ├── ManifestError 2  the manifest is wrong; lists every fault
    │   └── NoRun         2  no run has written where one was to be read
    ├── GateFailed        3  a gate failed; all artifacts and the report are written
    ├── DataError         4  data or weights are missing, corrupt or of another model
    ├── MachineError      5  this machine cannot do the job
    ├── TrainingError     1  training cannot go on (NaN loss)
    ├── QuantizationError 1  an INT8 model could not be made or proved
    ├── IncomparableSamples 1  timings of different hosts, ISAs or threads were to be compared
    ├── OutputError       1  the output cannot be written (full disk, locked by another run)
    ├── StorageError      1  S3 storage cannot be reached, refuses, or answers wrongly
    │   ├── ObjectMissing 1  there is no such object
    │   ├── ObjectChanged 1  an object changed while it was read
    │   └── TransferFailed 1 worth trying again; seen by users once all attempts are used up
    ├── StageCrashed      1  a stage's process died; names its log
    ├── TimeLimitReached  1  run.max_minutes are over; it resumes from its last checkpoint
    ├── MatrixFailed         some models of a matrix failed; the code is the first one's
    ├── Unfinished        1  a model of a matrix that runs elsewhere has no result yet
    ├── PeerLost          1  a process that trains with this one is gone; it resumes
    ├── LeaderEnded          rank 0 of such processes ended before its work was done; its code
    └── Stopped     128+sig  a signal stopped the job; it resumes from its last checkpoint

Messages say what, where, what was found and what to do next. They are shown to the user as they
stand, without a traceback.
"""

from dataclasses import dataclass

DONE = 0
INTERNAL = 1


class JobError(Exception):
    """An expected failure with a message for the user.

    Args:
        message: what went wrong, where, what was found.
        hint: the next step, in one sentence.
    """

    exit_code = INTERNAL

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(JobError):
    """The command line is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a manifest.

    Attributes:
        pointer: JSON pointer of the value, such as ``/train/epochs``.
        message: what was found and what is allowed.
        suggestion: a did-you-mean, or empty.
    """

    pointer: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        text = f"{self.pointer or '/'}: {self.message}"
        return f"{text} (did you mean {self.suggestion!r}?)" if self.suggestion else text


class ManifestError(UsageError):
    """The manifest is wrong.

    Args:
        source: where the manifest was read from.
        faults: every fault found, in the manifest's order.
    """

    def __init__(self, source: str, faults: tuple[Fault, ...]) -> None:
        self.source = source
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(
            f"{source}: {count}\n{lines}", "`job explain KEY` tells what a key may hold."
        )


class NoRun(UsageError):
    """No run has written where one was to be read."""


class GateFailed(JobError):
    """A gate failed; artifacts and report are complete."""

    exit_code = 3


class DataError(JobError):
    """Data or weights are missing, corrupt, or belong to another model."""

    exit_code = 4


class MachineError(JobError):
    """This machine cannot do the job."""

    exit_code = 5


class TrainingError(JobError):
    """Training cannot go on."""


class QuantizationError(JobError):
    """An INT8 model could not be made or proved."""


class IncomparableSamples(JobError):
    """Timings were to be compared that were measured under different conditions."""


class OutputError(JobError):
    """The output cannot be written."""


class StorageError(JobError):
    """S3 storage cannot be reached, refuses, or answers wrongly; trying again would not help."""


class ObjectMissing(StorageError):
    """There is no such object."""


class ObjectChanged(StorageError):
    """An object is not, or no longer, the one that was to be read."""


class TransferFailed(StorageError):
    """A request failed in a way that trying again may mend."""


class StageCrashed(JobError):
    """A stage's process died without saying why."""


class TimeLimitReached(JobError):
    """The job's time is over; its state is kept."""


class MatrixFailed(JobError):
    """Some models of a matrix failed; the others and the matrix report are complete.

    Args:
        exit_code: that of the first model that failed.
    """

    def __init__(self, exit_code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


class Unfinished(JobError):
    """A model of a matrix that is run elsewhere has no result yet."""


class PeerLost(JobError):
    """Another process of the same training is gone."""


class LeaderEnded(JobError):
    """Rank 0, beside which this process trains, ended before its work was done.

    Args:
        exit_code: that of rank 0.
    """

    def __init__(self, exit_code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


class Stopped(JobError):
    """A signal stopped the job.

    Args:
        signum: the signal's number; the exit code is 128 + signum.
    """

    def __init__(self, signum: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.signum = signum
        self.exit_code = 128 + signum


# After these a run goes on from where it was, once it is tried again.
GOES_ON = (Stopped, TimeLimitReached, OutputError, StorageError, PeerLost)
