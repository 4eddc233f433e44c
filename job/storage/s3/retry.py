"""Retries with growing random pauses."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from job.errors import TransferFailed
from job.storage.s3.errors import s3_errors
from job.uri import S3Uri

T = TypeVar("T")

# Earlier failures are not reported, because most succeed at the next attempt.
_REPORTED_AT = 4


@dataclass(frozen=True)
class Retry:
    """Number and pauses of the attempts.

    The pause before each retry is random, between 0 and a bound that doubles each time. If several
    clients fail at the same time, they retry at different times.

    Attributes:
        attempts: the maximum number of attempts in a row without progress, at least 1.
        first_seconds: the first bound.
        longest_seconds: the largest bound.
        sleep: sleeps for a number of seconds.
        say: callback for a message after several failures in a row; None for no message.
    """

    attempts: int = 8
    first_seconds: float = 0.2
    longest_seconds: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] | None = None

    def call(
        self, uri: S3Uri, action: Callable[[], T], progress: Callable[[], int] = lambda: 0
    ) -> T:
        """Call an action until it succeeds, and return its result.

        Args:
            uri: the object, for messages.
            action: one attempt; it may resume where the last attempt stopped.
            progress: returns the progress of the action. Progress resets the count of attempts.

        Raises:
            TransferFailed: all attempts failed; the message is from the last attempt.
            StorageError: a failure for which a retry cannot help.
        """
        failed, reached = 0, progress()
        while True:
            try:
                with s3_errors(uri):
                    return action()
            except TransferFailed as error:
                now = progress()
                failed, reached = 1 if now > reached else failed + 1, now
                if failed >= self.attempts:
                    tried = "1 attempt" if failed == 1 else f"{failed} attempts"
                    raise TransferFailed(f"{error.message} (after {tried})", error.hint) from error
                if failed == _REPORTED_AT and self.say:
                    self.say(f"{error.message} (attempt {failed} of {self.attempts}), trying again")
            bound = min(self.longest_seconds, self.first_seconds * 2 ** (failed - 1))
            self.sleep(random.uniform(0, bound))  # noqa: S311
