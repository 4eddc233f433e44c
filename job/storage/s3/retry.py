"""Retries with growing random pauses, within a time budget."""

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, TypeVar

from job.errors import ChecksumDiffers, TransferFailed, UsageError
from job.storage.s3.errors import s3_errors
from job.uri import S3Uri

T = TypeVar("T")

BUDGET_SECONDS = 600.0
_MESSAGE_SECONDS = 60.0
# boto3's number of attempts in each mode of AWS_RETRY_MODE.
ATTEMPTS_OF_MODE = {"legacy": 5, "standard": 3, "adaptive": 3}


@dataclass(frozen=True)
class Limits:
    """The limits that the AWS_* variables set.

    Attributes:
        attempts: number of attempts; None if no variable limits it.
        adaptive: whether boto3 limits the rate of requests after throttling.
    """

    attempts: int | None = None
    adaptive: bool = False

    @classmethod
    def of_environment(cls) -> Self:
        """Read AWS_MAX_ATTEMPTS and AWS_RETRY_MODE.

        Raises:
            UsageError: a variable has an invalid value.
        """
        mode = os.environ.get("AWS_RETRY_MODE", "").lower()
        if mode and mode not in ATTEMPTS_OF_MODE:
            modes = ", ".join(ATTEMPTS_OF_MODE)
            raise UsageError(
                f"AWS_RETRY_MODE: expected one of {modes}, found {mode[:50]!a}",
                "Correct or unset AWS_RETRY_MODE.",
            )
        text = os.environ.get("AWS_MAX_ATTEMPTS", "")
        if text and not (text.isdecimal() and int(text) > 0):
            raise UsageError(
                f"AWS_MAX_ATTEMPTS: expected an integer of at least 1, found {text[:50]!a}",
                "Correct or unset AWS_MAX_ATTEMPTS.",
            )
        return cls(int(text) if text else ATTEMPTS_OF_MODE.get(mode), mode == "adaptive")


@dataclass
class _Messages:
    """Limits the messages of all threads to one per minute."""

    at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, now: float) -> bool:
        """Return whether a message is due, and count it."""
        with self.lock:
            if self.at is not None and now - self.at < _MESSAGE_SECONDS:
                return False
            self.at = now
            return True


@dataclass(frozen=True)
class Retry:
    """Time budget, number and pauses of the attempts.

    The pause before each retry has a bound that doubles each time. The pause is random, between
    half of the bound and the bound (equal jitter). If several clients fail at the same time, they
    retry at different times.

    Attributes:
        budget_seconds: how long to retry after the first of several failures in a row without
            progress.
        attempts: the maximum number of attempts in a row without progress, at least 1; None: only
            the time is limited.
        first_seconds: the first bound.
        longest_seconds: the largest bound.
        sleep: sleeps for a number of seconds.
        clock: returns a time in seconds.
        say: callback for a message at the first failure and then every minute; None for no message.
        messages: limits the messages of all threads to one per minute.
        server: the URL of the server, for messages.
    """

    budget_seconds: float = BUDGET_SECONDS
    attempts: int | None = None
    first_seconds: float = 0.2
    longest_seconds: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] | None = None
    messages: _Messages = field(default_factory=_Messages, compare=False, repr=False)
    server: str = "S3"

    def call(
        self, uri: S3Uri, action: Callable[[], T], progress: Callable[[], int] = lambda: 0
    ) -> T:
        """Call an action until it succeeds, and return its result.

        Args:
            uri: the object, for messages.
            action: one attempt; it may resume where the last attempt stopped.
            progress: returns the progress of the action. Progress resets the budget and the count
                of attempts.

        Raises:
            TransferFailed: all attempts failed; the message is from the last attempt.
            StorageError: a failure for which a retry cannot help.
        """
        failed, reached, since = 0, progress(), 0.0
        while True:
            try:
                with s3_errors(uri, self.server):
                    return action()
            except TransferFailed as error:
                failure, now, passed = error, self.clock(), progress()
            failed, reached, since = (
                (failed + 1, reached, since) if failed and passed <= reached else (1, passed, now)
            )
            bound = min(self.longest_seconds, self.first_seconds * 2 ** min(failed - 1, 30))
            pause = random.uniform(bound / 2, bound)  # noqa: S311
            left = self.budget_seconds - (now - since)
            if failed == self.attempts or pause > left:
                tried = "1 attempt" if failed == 1 else f"{failed} attempts"
                raise TransferFailed(
                    f"{failure.message} (after {tried} in {now - since:.0f} s)", failure.hint
                ) from failure
            if self.say and self.messages.due(now):
                self.say(f"{failure.message}; {self._following(failure, failed, left)}")
            self.sleep(pause)

    def _following(self, failure: TransferFailed, failed: int, left_seconds: float) -> str:
        """Return what follows a failure, for its message."""
        if isinstance(failure, ChecksumDiffers):
            # The same wrong content for the second time ends the retries.
            return "the object is fetched again, because the transfer or the object can be damaged"
        if self.attempts:
            return f"attempt {failed + 1} of {self.attempts} follows"
        return f"retrying for up to {left_seconds:.0f} s"
