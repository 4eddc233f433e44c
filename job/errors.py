"""The one exception tree, and the exit codes.

    JobError              1  any other error
    ├── UsageError        2  the command line, a setting or the network is invalid
    │   ├── ManifestError 2  the manifest is invalid; lists all faults
    │   └── NoRun         2  the output to read contains no run
    ├── GateFailed        3  a gate failed; all artifacts and the report are written
    ├── DataError         4  data or weights are missing, corrupt or belong to another model
    ├── MachineError      5  this machine cannot run the job
    ├── TrainingError     1  training cannot continue (NaN loss)
    ├── QuantizationError 1  an INT8 model could not be built or verified
    ├── IncomparableSamples 1  timings of different hosts, ISAs or thread counts were compared
    ├── OutputError       1  the output cannot be written (full disk, locked by another run)
    │   └── UnusableFolder 1 the folder is a file, has files of others, or does not allow writing
    ├── StorageError      4  S3 rejects a request or returns a wrong response; a retry cannot help
    │   ├── ObjectMissing 4  the object does not exist
    │   ├── UploadMissing 1  the unfinished multipart upload does not exist any more
    │   ├── ObjectChanged 1  the object changed while it was read
    │   │   └── ObjectDamaged 4 the object's content does not match its checksum
    │   └── TransferFailed 1 a retry may succeed; users see it after the last retry
    │       └── ChecksumDiffers 1 the received content does not match its checksum
    ├── StageCrashed      1  a stage's process ended without a result; the message names its log
    ├── TimeLimitReached  1  run.max_minutes have passed; the next run resumes
    ├── MatrixFailed         some models of a matrix failed; exit code of the first of them
    ├── Unfinished        1  a model of a matrix runs on another machine and has no result yet
    ├── PeerLost          1  lost the connection to another training process; the next run resumes
    ├── RankZeroEnded        rank 0 ended; exit code of rank 0
    └── Stopped     128+sig  a signal stopped the job; the next run resumes

A message states what failed, where, what was found and what was expected; the hint states what to
do. Users see both without a traceback.
"""

from dataclasses import dataclass

DONE = 0
INTERNAL = 1


class JobError(Exception):
    """An expected error with a message for the user.

    Args:
        message: what failed, where, what was found, what was expected.
        hint: what to do, as an instruction in one or two sentences.
    """

    exit_code = INTERNAL

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(JobError):
    """The command line, a setting of the manifest, or the network in the manifest is invalid."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One fault of a manifest.

    Attributes:
        pointer: JSON pointer of the value, such as ``/train/epochs``.
        message: what was found and what is allowed.
        suggestion: the spelling that was probably meant, or empty.
    """

    pointer: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        text = f"{self.pointer or '/'}: {self.message}"
        return f"{text} (did you mean {self.suggestion!r}?)" if self.suggestion else text


class ManifestError(UsageError):
    """The manifest is invalid.

    Args:
        source: path or URI of the manifest.
        faults: all faults, in the manifest's order.
    """

    def __init__(self, source: str, faults: tuple[Fault, ...]) -> None:
        self.source = source
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        named = any(fault.pointer for fault in faults)
        super().__init__(
            f"{source}: {count}\n{lines}",
            "Run `job explain` to list all keys, or `job explain KEY` for the values of a key."
            if named
            else "",
        )


class NoRun(UsageError):
    """The output to read contains no run."""


class GateFailed(JobError):
    """A gate failed; all artifacts and the report are written."""

    exit_code = 3


class DataError(JobError):
    """Data or weights are missing, corrupt, or belong to another model."""

    exit_code = 4


class MachineError(JobError):
    """This machine cannot run the job."""

    exit_code = 5


class TrainingError(JobError):
    """Training cannot continue."""


class QuantizationError(JobError):
    """An INT8 model could not be built or verified."""


class IncomparableSamples(JobError):
    """Timings measured under different conditions cannot be compared."""


class OutputError(JobError):
    """The output cannot be written."""


class UnusableFolder(OutputError):
    """The folder of the output is a file, contains files of others, or does not allow writing."""


class StorageError(JobError):
    """S3 rejects a request or returns a wrong response, and a retry cannot help.

    The cause is the endpoint, the bucket, the credentials, the permissions, the clock of this
    machine, a setting, or the server. After the errors of the subclasses with exit code 1, the same
    command may succeed later.
    """

    exit_code = DataError.exit_code


class ObjectMissing(StorageError):
    """The object does not exist."""


class UploadMissing(StorageError):
    """The unfinished multipart upload does not exist any more; a new upload may succeed."""

    exit_code = INTERNAL


class ObjectChanged(StorageError):
    """The object is another version than expected, or changed while it was read."""

    exit_code = INTERNAL


class ObjectDamaged(ObjectChanged):
    """The content of the object does not match its checksum; a retry returns the same content."""

    exit_code = DataError.exit_code


class TransferFailed(StorageError):
    """A request failed, but a retry may succeed."""

    exit_code = INTERNAL


class ChecksumDiffers(TransferFailed):
    """Received content does not match its checksum; the same content twice is a damaged object."""


class StageCrashed(JobError):
    """A stage's process ended without reporting an error."""


class TimeLimitReached(JobError):
    """The job's time limit has passed; its state is saved."""


class MatrixFailed(JobError):
    """Some models of a matrix failed; the other models and the matrix report are complete.

    Args:
        exit_code: exit code of the first model that failed.
    """

    def __init__(self, exit_code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


class Unfinished(JobError):
    """A model of a matrix runs on another machine and has no result yet."""


class PeerLost(JobError):
    """The connection to another process of the same training was lost."""


class RankZeroEnded(JobError):
    """Rank 0 of this process's training ended.

    Args:
        exit_code: exit code of rank 0; 0 if the run succeeded.
    """

    def __init__(self, exit_code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


class Stopped(JobError):
    """A signal stopped the job.

    Args:
        signum: number of the signal; the exit code is 128 + signum.
    """

    def __init__(self, signum: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.signum = signum
        self.exit_code = 128 + signum


# After these errors, the same command resumes the run.
GOES_ON = (Stopped, TimeLimitReached, OutputError, StorageError, PeerLost)
